// What the commands share with main. Each command is one file, which adds its command line and runs it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/storage/status.h"

namespace CLI {
class App;
}

namespace holdfast::tools {

/// Exit codes of every command (launch has more). Scripts use 1 to ask "is it intact?" and "are they alike?".
inline constexpr int kOk = 0;
inline constexpr int kFound = 1;       // verify found damage, diff found a difference
inline constexpr int kUsage = 2;       // invalid command line
inline constexpr int kUnreadable = 3;  // what was named does not exist or cannot be read

/// Filled by the command that the command line selects.
struct Invocation {
  bool json = false;
  std::vector<std::string> program = {};      // launch: the words that follow its own options
  std::function<storage::Result<int>()> run;  // returns an exit code, or why it failed
};

void add_ls(CLI::App& app, Invocation& invocation);
void add_show(CLI::App& app, Invocation& invocation);
void add_verify(CLI::App& app, Invocation& invocation);
void add_diff(CLI::App& app, Invocation& invocation);
void add_copy(CLI::App& app, Invocation& invocation);
void add_doctor(CLI::App& app, Invocation& invocation);
void add_launch(CLI::App& app, Invocation& invocation);

/// For `holdfast launch`: moves the program and its arguments, unchanged, into `program` and returns how many words are
/// left for launch itself.
storage::Result<int> take_launched_program(int argc, char** argv, std::vector<std::string>& program);

/// The end of every command's --help.
std::string help_footer(const std::string& example, const std::string& json_keys, const std::string& exit_codes);

/// How VERSION is written, for --help.
extern const char* const kVersionHelp;

}  // namespace holdfast::tools
