// The table of the session's options: name, type, meaning, and how a text becomes the value.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/runtime/options/options.h"
#include "options/config_file.h"

namespace holdfast {

/// One row of the table. `set` takes a text, or one element of a list; it throws std::invalid_argument with the reason
/// if the text is wrong.
struct Option {
  std::string_view name;
  std::string_view argument;  // empty: a switch
  JsonType type;              // in a configuration file
  std::string_view meaning;
  std::function<void(SessionOptions&, const std::string&)> set;
  std::function<std::string(const SessionOptions&)> get;
  std::function<void(SessionOptions&)> clear = {};  // lists only
  std::function<void(SessionOptions&)> read = {};   // typed options only: reads a text that the code gave
};

const std::vector<Option>& option_table();

/// Throws std::invalid_argument with the reason if `path` is empty or begins with a ~ that no shell expanded.
void check_path(const std::string& path);

}  // namespace holdfast
