// A session's options as read from a command line, environment variables and a configuration file, and the refusal of
// wrong ones.
#pragma once

#include <fstream>
#include <ios>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/options/options.h"
#include "message_parts.h"
#include "options/config_file.h"
#include "storage/scratch_folder.h"

namespace command_line {

using holdfast::Error;
using holdfast::SessionOptions;
using holdfast::detail::OptionsRead;

struct CommandLine {
  OptionsRead read;
  std::vector<std::string> left;
};

/// `around`: the machine; by default one of no particular platform.
inline CommandLine read(std::vector<std::string> arguments, SessionOptions code = {},
                        std::vector<std::string> variables = {}, const holdfast::Surroundings& around = {}) {
  arguments.insert(arguments.begin(), "/usr/bin/train");
  std::vector<char*> argv, environment;
  for (auto& argument : arguments) argv.push_back(argument.data());
  for (auto& variable : variables) environment.push_back(variable.data());
  int argc = static_cast<int>(argv.size());
  argv.push_back(nullptr);
  environment.push_back(nullptr);
  CommandLine result{holdfast::detail::read_options(argc, argv.data(), code, environment.data(), around), {}};
  for (int i = 0; i < argc; ++i) result.left.push_back(argv[i]);
  CHECK(argv[argc] == nullptr);
  return result;
}

inline std::string refusal(const std::vector<std::string>& arguments, const SessionOptions& code = {},
                           const std::vector<std::string>& variables = {}) {
  try {
    read(arguments, code, variables);
  } catch (const Error& error) {
    CHECK(error.code() == holdfast::storage::StatusCode::invalid);
    return error.what();
  }
  return "";
}

// A test's own configuration file, read as the user would pass it.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text, const std::string& name = "train.json")
      : path_((folder_ / name).string()) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  const std::string& path() const { return path_; }
  std::vector<std::string> argument() const { return {"--holdfast.config", path_}; }

 private:
  ScratchFolder folder_;
  std::string path_;
};

inline OptionsRead read_file(const std::string& text) { return read(ConfigFile(text).argument()).read; }

inline const holdfast::detail::OptionInForce& in_force(const OptionsRead& options, const std::string& name) {
  for (const auto& option : options.in_force) {
    if (option.name == name) return option;
  }
  FAIL("no option " + name);
  return options.in_force.front();
}

}  // namespace command_line
