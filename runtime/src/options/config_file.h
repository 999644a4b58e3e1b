// A configuration file: one JSON object whose keys are names of options; comments (// and /* */) are allowed. This
// module reads the entries; options.cc interprets them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

enum class JsonType { string, whole_number, fraction, boolean, null, list, object };

struct ConfigValue {
  JsonType type = JsonType::null;
  std::string text;  // a string's content, a number's digits (of any length if it is whole), true or false; else empty
};

struct ConfigEntry {
  std::string key;
  std::size_t line = 0;  // of the key, from 1
  ConfigValue value;
  std::vector<ConfigValue> elements;  // of a list, in its order
};

/// The entries of `text` in their order. `path` only names the file in errors: Error(invalid) that begins with
/// "path:line:column: ", where columns count characters from 1. A key that occurs twice is an error.
std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& path);

/// The file's content. Throws Error(invalid) with a sentence that says why it cannot be read, the folder from which a
/// relative path counts, and the file that was probably meant.
std::string read_config_text(const std::string& path);

/// Throws Error(invalid) with that sentence, about a file or an option.
[[noreturn]] void refuse_options(const std::string& sentence);

/// The value for messages: the string "5", the number 2.5, true, null, a list, an object.
std::string in_words(const ConfigValue& value);

}  // namespace holdfast
