#include "options/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/nearest_name.h"

namespace holdfast {
namespace {

// Far more than any configuration has, but small enough that reading a device or a wrong file does no harm.
constexpr std::size_t kMostBytes = std::size_t{1} << 20;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // some editors begin UTF-8 with it

constexpr std::string_view kShape = "a configuration file is one JSON object, such as { \"every\": \"10min\" }";

constexpr const char* kOpenString = "a string does not end in its line: '\"' is missing";

bool begins_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

std::size_t line_of(std::string_view text, std::size_t offset) {
  return 1 + static_cast<std::size_t>(std::count(text.begin(), text.begin() + static_cast<long>(offset), '\n'));
}

// "path:line:column". Counts UTF-8 characters by their first bytes.
std::string place(const std::string& path, std::string_view text, std::size_t offset) {
  const auto before = text.substr(0, offset);
  const auto line = before.substr(before.rfind('\n') + 1);  // npos + 1 is 0
  const auto column = 1 + std::count_if(line.begin(), line.end(), [](char byte) { return (byte & 0xc0) != 0x80; });
  return fmt::format("{}:{}:{}", path, line_of(text, offset), column);
}

// The word that the byte at `offset` is part of, or that character alone.
std::string_view word_at(std::string_view text, std::size_t offset) {
  const auto in_word = [&](std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    return std::isalnum(byte) || byte == '_' || byte == '-' || byte >= 0x80;  // of UTF-8
  };
  if (!in_word(offset)) return text.substr(offset, 1);
  auto begin = offset, end = offset;
  while (begin > 0 && in_word(begin - 1)) --begin;
  while (end < text.size() && in_word(end)) ++end;
  return text.substr(begin, end - begin);
}

// Builds the entries from nlohmann's events. At an event its stream is right behind the event's token, or one character
// further if that is a number, because the parser looks ahead no further.
class EntryBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  EntryBuilder(std::string_view text, std::string path, std::istream& stream)
      : text_(text), path_(std::move(path)), stream_(stream) {}

  bool null() override { return take({JsonType::null, ""}); }
  bool boolean(bool value) override { return take({JsonType::boolean, value ? "true" : "false"}); }
  bool number_integer(number_integer_t value) override { return take({JsonType::whole_number, std::to_string(value)}); }
  bool number_unsigned(number_unsigned_t value) override {
    return take({JsonType::whole_number, std::to_string(value)});
  }
  bool number_float(number_float_t, const string_t& written) override {
    // The parser reports a whole number of more than 64 bits as a float.
    const bool whole = written.find_first_not_of("-0123456789") == std::string::npos;
    return take({whole ? JsonType::whole_number : JsonType::fraction, written});
  }
  bool string(string_t& value) override { return take({JsonType::string, value}); }
  bool binary(binary_t&) override { return false; }  // not in JSON
  bool start_object(std::size_t) override {
    if (!open_.empty()) take({JsonType::object, ""});
    return push('{');
  }
  bool start_array(std::size_t) override { return take({JsonType::list, ""}) && push('['); }
  bool end_object() override { return pop(); }
  bool end_array() override { return pop(); }

  bool key(string_t& name) override {
    after_value_ = false;
    if (open_.size() > 1) return true;
    const auto here = line_of(text_, read_so_far());
    for (const auto& entry : entries_) {
      if (entry.key != name) continue;
      refuse_options(
          fmt::format("{}:{}: \"{}\" is already in line {}: remove one of them", path_, here, name, entry.line));
    }
    entries_.push_back({name, here, {}, {}});
    return true;
  }

  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override {
    const std::string_view what = error.what();
    const auto dash = what.find(" - ");
    const auto detail = dash == std::string_view::npos ? what.substr(what.find("] ") + 2) : what.substr(dash + 3);
    if (position == 0 || position > text_.size()) {
      refuse_options(fmt::format("{}: {}", place(path_, text_, text_.size()), problem_at_end(detail)));
    }
    // For strings and numbers `token` is the text; for others it may also hold text before them.
    const auto last = position - 1;
    auto found = word_at(text_, last);
    if (begins_with(detail, "unexpected string") || begins_with(detail, "unexpected number")) {
      found = text_.substr(position - token.size(), token.size());
    } else if (begins_with(detail, "invalid string")) {
      found = text_.substr(last, 1);
    }
    const auto at = static_cast<std::size_t>(found.data() - text_.data());
    refuse_options(fmt::format("{}: {}", place(path_, text_, at), problem(detail, found)));
  }

  std::vector<ConfigEntry> entries() { return std::move(entries_); }

 private:
  // The most frequent mistakes have messages of their own, the others nlohmann's.
  std::string problem(std::string_view detail, std::string_view found) const {
    const char around = open_.empty() ? '\0' : open_.back();
    if (begins_with(detail, "unexpected") && after_value_ && around != '\0') {
      if (found == (around == '{' ? "}" : "]")) {
        return fmt::format("nothing follows the last comma: remove it before {}", found);
      }
      if (std::string_view("}]:").find(found.front()) == std::string_view::npos) {
        return fmt::format("a comma is missing before {}", found);
      }
    }
    if (begins_with(detail, "invalid literal")) {
      return fmt::format("{} is not JSON: keys and strings need double quotes, comments begin with //", found);
    }
    if (begins_with(detail, "invalid string: control character U+000A") ||
        begins_with(detail, "invalid string: control character U+000D")) {
      return kOpenString;
    }
    if (begins_with(detail, "invalid string: ill-formed UTF-8")) return "a string is not UTF-8";
    return std::string(detail);
  }

  std::string problem_at_end(std::string_view detail) const {
    if (begins_with(detail, "invalid string: missing closing quote")) return kOpenString;
    // nlohmann/json 3.11.3 has a message of its own for an empty text.
    const bool is_empty = detail.find("attempting to parse an empty input") != std::string_view::npos;
    if (!is_empty && !begins_with(detail, "unexpected")) return std::string(detail);
    if (open_.empty()) return fmt::format("the file is empty: {}", kShape);
    return fmt::format("the file ends too early: '{}' is missing", open_.back() == '[' ? ']' : '}');
  }

  std::size_t read_so_far() const {
    const auto at = stream_.rdbuf()->pubseekoff(0, std::ios::cur, std::ios::in);
    return std::min(static_cast<std::size_t>(at), text_.size());
  }

  bool take(ConfigValue value) {
    after_value_ = true;
    if (open_.empty()) {
      refuse_options(
          fmt::format("{}:{}: {}, not {}", path_, line_of(text_, read_so_far() - 1), kShape, in_words(value)));
    }
    if (open_.size() == 1)
      entries_.back().value = std::move(value);
    else if (open_.size() == 2 && open_.back() == '[')
      entries_.back().elements.push_back(std::move(value));
    return true;
  }

  bool push(char bracket) {
    open_.push_back(bracket);
    after_value_ = false;
    return true;
  }

  bool pop() {
    open_.pop_back();
    after_value_ = true;
    return true;
  }

  std::string_view text_;
  std::string path_;
  std::istream& stream_;
  std::vector<ConfigEntry> entries_;
  std::string open_;          // the brackets around what is read
  bool after_value_ = false;  // the last event was a whole value
};

// The path of the file in the same folder that was probably meant; empty if no name is near.
std::string nearest_file(const boost::filesystem::path& path) {
  namespace fs = boost::filesystem;
  const auto folder = path.parent_path();
  std::vector<std::string> names;
  boost::system::error_code ignored;
  for (fs::directory_iterator file(folder.empty() ? "." : folder, ignored), end; file != end; file.increment(ignored)) {
    if (fs::is_regular_file(file->path(), ignored)) names.push_back(file->path().filename().string());
  }
  const auto meant = storage::meant_name(path.filename().string(), names);
  return meant.empty() ? meant : (folder / meant).string();
}

}  // namespace

void refuse_options(const std::string& sentence) { throw Error(storage::StatusCode::invalid, sentence); }

std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& path) {
  if (begins_with(text, kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  // nlohmann's lexer treats a NUL as the end of its input.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    refuse_options(
        fmt::format("{}: a NUL byte is not allowed: a configuration file is JSON in UTF-8", place(path, text, nul)));
  }
  std::istringstream stream{std::string(text)};
  EntryBuilder builder(text, path, stream);
  nlohmann::json::sax_parse(stream, &builder, nlohmann::json::input_format_t::json, /*strict=*/true,
                            /*ignore_comments=*/true);
  return builder.entries();
}

std::string read_config_text(const std::string& path) {
  const auto cannot_read = [&](int error) {
    auto sentence = fmt::format("'{}' cannot be read: {}", path, std::generic_category().message(error));
    if (error == ENOENT) {
      boost::system::error_code ignored;
      if (boost::filesystem::path(path).is_relative()) {
        sentence += "; a relative path counts from " + boost::filesystem::current_path(ignored).string();
      }
      const auto meant = nearest_file(path);
      if (!meant.empty()) sentence += fmt::format("; the nearest file is '{}'", meant);
    }
    refuse_options(sentence);
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  if (!file) cannot_read(errno);
  std::string text(kMostBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get())) cannot_read(errno);
  if (text.size() > kMostBytes)
    refuse_options(fmt::format("'{}' is larger than 1 MiB: it is not a configuration file", path));
  return text;
}

std::string in_words(const ConfigValue& value) {
  switch (value.type) {
    case JsonType::string:
      return fmt::format("the string \"{}\"", value.text);
    case JsonType::whole_number:
    case JsonType::fraction:
      return "the number " + value.text;
    case JsonType::boolean:
      return value.text;
    case JsonType::null:
      return "null";
    case JsonType::list:
      return "a list";
    case JsonType::object:
      return "an object";
  }
  return {};
}

}  // namespace holdfast
