// The place of a call in the program, as messages name it.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <string>
#include <string_view>

namespace holdfast {

/// "train.cc:41".
inline std::string text_of(const std::source_location& site) {
  const std::string_view file = site.file_name();
  return fmt::format("{}:{}", file.substr(file.find_last_of('/') + 1), site.line());
}

}  // namespace holdfast
