// What the verbs share with main: each verb is one file that adds its command line and runs it.
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

/// Exit codes of every verb (launch has more); 1 is for scripts that ask "is it right?" and "are they alike?".
inline constexpr int kOk = 0;
inline constexpr int kFound = 1;       // verify found damage, diff found a difference
inline constexpr int kUsage = 2;       // the command line makes no sense
inline constexpr int kUnreadable = 3;  // what was named is not there or cannot be read

/// Filled by the verb that the command line chose.
struct Invocation {
  bool json = false;
  std::vector<std::string> program = {};      // launch: what follows its own options
  std::function<storage::Result<int>()> run;  // an exit code, or why it could not be done
};

void add_ls(CLI::App& app, Invocation& invocation);
void add_show(CLI::App& app, Invocation& invocation);
void add_verify(CLI::App& app, Invocation& invocation);
void add_diff(CLI::App& app, Invocation& invocation);
void add_launch(CLI::App& app, Invocation& invocation);

/// Of `holdfast launch`: puts the program and its arguments aside, as they are, and returns how many words are left for
/// launch itself.
storage::Result<int> take_launched_program(int argc, char** argv, std::vector<std::string>& program);

/// The end of every verb's --help.
std::string help_footer(const std::string& example, const std::string& json_keys, const std::string& exit_codes);

/// How VERSION is written, for --help.
extern const char* const kVersionHelp;

}  // namespace holdfast::tools
