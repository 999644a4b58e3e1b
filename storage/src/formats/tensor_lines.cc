#include "formats/tensor_lines.h"

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/entry_text.h"
#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

constexpr std::string_view kTensorsKey = "\n\"tensors\":{";
constexpr std::string_view kValuesKey = "\n\"values\":";
constexpr std::string_view kTensorsEnd = "\n},";

template <std::integral Number>
void append_number(std::string& text, Number number) {
  char digits[20];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), number).ptr;
  text.append(digits, end);
}

void append_list(std::string& text, const std::vector<std::int64_t>& numbers) {
  text += '[';
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) text += ',';
    append_number(text, numbers[i]);
  }
  text += ']';
}

/// The end of the string that begins at `quote`: its closing quote, or the text's end.
std::size_t end_of_string(std::string_view text, std::size_t quote) {
  for (std::size_t end = text.find('"', quote + 1); end != std::string_view::npos; end = text.find('"', end + 1)) {
    std::size_t before = end;  // an odd number of backslashes escapes the quote
    while (text[before - 1] == '\\') --before;
    if ((end - before) % 2 == 0) return end;
  }
  return text.size();
}

/// The brackets of a text that begins a JSON document, without those in strings.
struct Brackets {
  int open = 0;               // at the text's end
  bool closed_early = false;  // all brackets were closed before the text's end
  bool in_string = false;     // the text ends in a string
};
Brackets brackets_of(std::string_view text) {
  Brackets found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    found.closed_early = found.closed_early || (i > 0 && found.open == 0);
    if (c == '"') {
      i = end_of_string(text, i);
      found.in_string = i == text.size();
    } else if (c == '{' || c == '[') {
      ++found.open;
    } else if (c == '}' || c == ']') {
      --found.open;
    }
  }
  return found;
}

/// Whether `text` is one object from its first character to its last; checks only brackets.
bool is_one_object(std::string_view text) {
  const Brackets brackets = brackets_of(text);
  return text.starts_with('{') && brackets.open == 0 && !brackets.closed_early;
}

/// Whether the end of `text`, which begins a JSON document, lies directly within the document's object.
bool ends_in_outer_object(std::string_view text) {
  const Brackets brackets = brackets_of(text);
  return brackets.open == 1 && !brackets.in_string;
}

/// Reads only the layout that our encoder writes.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool ok() const { return ok_; }
  bool at_end() const { return at_ == text_.size(); }
  bool next_is(std::string_view literal) const { return text_.substr(at_, literal.size()) == literal; }
  void skip(std::string_view literal) {
    if (next_is(literal)) {
      at_ += literal.size();
    } else {
      ok_ = false;
    }
  }
  std::uint64_t number() {
    std::uint64_t value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc() || (*begin == '0' && end - begin > 1)) ok_ = false;
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }
  std::vector<std::int64_t> list() {
    std::vector<std::int64_t> numbers;
    skip("[");
    while (ok_ && !next_is("]")) {
      if (!numbers.empty()) skip(",");
      const std::uint64_t value = number();
      if (value > std::uint64_t{INT64_MAX}) ok_ = false;
      numbers.push_back(static_cast<std::int64_t>(value));
    }
    skip("]");
    return numbers;
  }
  /// The text before the next quote; moves past that quote.
  std::string_view until_quote() {
    const std::size_t end = text_.find('"', at_);
    if (end == std::string_view::npos) {
      ok_ = false;
      return {};
    }
    const std::string_view found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }
  std::string string() {
    skip("\"");
    const std::size_t begin = at_;
    std::string_view found = until_quote();
    if (needs_no_escape(found)) return std::string(found);
    // The JSON reader decodes escapes and characters outside ASCII.
    while (ok_ && (found.size() - found.find_last_not_of('\\') - 1) % 2 == 1) {
      (void)until_quote();
      found = text_.substr(begin, at_ - begin - 1);
    }
    const nlohmann::json parsed =
        nlohmann::json::parse(text_.substr(begin - 1, at_ - begin + 1), nullptr, /*allow_exceptions=*/false);
    if (!ok_ || !parsed.is_string()) {
      ok_ = false;
      return {};
    }
    return parsed.get<std::string>();
  }
  TensorPart part() {
    TensorPart part;
    skip("{\"file\":");
    part.file = number();
    skip(",\"begin\":");
    part.begin = number();
    skip(",\"end\":");
    part.end = number();
    if (next_is(",\"offset\":")) {
      skip(",\"offset\":");
      part.offset = list();
      skip(",\"extent\":");
      part.extent = list();
    }
    skip("}");
    return part;
  }
  TensorEntry tensor() {
    TensorEntry tensor;
    tensor.name = string();
    skip(":{\"dtype\":\"");
    const auto dtype = parse_dtype(until_quote());
    skip(",\"shape\":");
    tensor.shape = list();
    skip(",\"digest\":\"");
    const auto digest = Digest::parse(until_quote());
    skip(",\"parts\":[");
    while (ok_ && !next_is("]")) {
      if (!tensor.parts.empty()) skip(",");
      tensor.parts.push_back(part());
    }
    skip("]");
    if (next_is(",\"non_finite\":")) {
      skip(",\"non_finite\":");
      tensor.non_finite = number();
    }
    skip("}");
    if (!dtype || !digest) ok_ = false;
    if (!ok_) return tensor;
    tensor.dtype = *dtype;
    tensor.digest = *digest;
    return tensor;
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

/// The lines between the brackets of a manifest's tensors, and the text around them with the brackets.
struct Block {
  std::string_view before;
  std::string_view lines;  // each with the line feed before it
  std::string_view after;
  std::size_t count = 0;
};
std::optional<Block> block_of_tensors(std::string_view entry) {
  const std::size_t key = entry.find(kTensorsKey);
  if (key == std::string_view::npos) return std::nullopt;
  const std::size_t begin = key + kTensorsKey.size();
  if (entry[begin] != '\n') return std::nullopt;
  std::size_t count = 0;
  for (std::size_t at = begin; at != std::string_view::npos; at = entry.find('\n', at + 1), ++count) {
    if (entry.substr(at, kTensorsEnd.size()) != kTensorsEnd) continue;
    return Block{entry.substr(0, begin), entry.substr(begin, at - begin), entry.substr(at), count};
  }
  return std::nullopt;
}

}  // namespace

void append_tensor(std::string& text, const TensorEntry& tensor) {
  if (needs_no_escape(tensor.name)) {
    text.append("\"").append(tensor.name).append("\"");
  } else {
    text += to_text(tensor.name);
  }
  text.append(":{\"dtype\":\"").append(to_string(tensor.dtype)).append("\",\"shape\":");
  append_list(text, tensor.shape);
  text.append(",\"digest\":\"").append(tensor.digest.hex()).append("\",\"parts\":[");
  for (std::size_t i = 0; i < tensor.parts.size(); ++i) {
    const TensorPart& part = tensor.parts[i];
    text.append(i > 0 ? ",{\"file\":" : "{\"file\":");
    append_number(text, part.file);
    text.append(",\"begin\":");
    append_number(text, part.begin);
    text.append(",\"end\":");
    append_number(text, part.end);
    if (!part.offset.empty()) {
      text.append(",\"offset\":");
      append_list(text, part.offset);
      text.append(",\"extent\":");
      append_list(text, part.extent);
    }
    text += '}';
  }
  text += ']';
  if (tensor.non_finite > 0) {
    text.append(",\"non_finite\":");
    append_number(text, tensor.non_finite);
  }
  text += '}';
}

std::optional<WithoutTensors> take_tensors(std::string_view entry) {
  const auto block = block_of_tensors(entry);
  if (!block || !ends_in_outer_object(block->before.substr(0, block->before.size() - 1))) return std::nullopt;
  WithoutTensors taken;
  taken.tensors.reserve(block->count);
  Scanner scanner(block->lines);
  while (!scanner.at_end()) {
    scanner.skip(taken.tensors.empty() ? "\n" : ",\n");
    TensorEntry tensor = scanner.tensor();
    if (!scanner.ok()) return std::nullopt;
    if (!taken.tensors.empty() && taken.tensors.back().name >= tensor.name) return std::nullopt;
    taken.tensors.push_back(std::move(tensor));
  }
  taken.rest.append(block->before).append(block->after);
  return taken;
}

std::optional<ManifestOutline> take_outline(std::string_view entry) {
  const auto block = block_of_tensors(entry);
  if (!block) return std::nullopt;
  const std::size_t key = block->before.find(kValuesKey);
  if (key == std::string_view::npos) return std::nullopt;
  const std::size_t begin = key + kValuesKey.size();
  const std::size_t end = block->before.find(",\n", begin);  // a string holds no line feed
  if (end == std::string_view::npos || !is_one_object(block->before.substr(begin, end - begin))) return std::nullopt;
  const std::string_view head = block->before.substr(0, begin);
  const std::string_view between = block->before.substr(end, block->before.size() - 1 - end);
  ManifestOutline outline;
  outline.tensors = block->count;
  outline.rest.append(head).append("{}").append(between);
  if (!ends_in_outer_object(outline.rest)) return std::nullopt;
  outline.rest.append("{").append(block->after);
  return outline;
}

}  // namespace holdfast::storage
