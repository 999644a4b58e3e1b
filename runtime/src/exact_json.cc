#include "exact_json.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/text.h"

namespace holdfast {
namespace {

constexpr const char* kDouble = "$double";

std::string text_of(double x) {
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  const auto bits = std::bit_cast<std::uint64_t>(x);
  if (bits == std::bit_cast<std::uint64_t>(std::numeric_limits<double>::quiet_NaN())) return "nan";
  std::string text = "nan:";
  storage::append_hex(text, bits, 16);
  return text;
}

double parse(const nlohmann::json& text) {
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (const auto* string = text.get_ptr<const std::string*>();
      string && string->size() == 20 && string->starts_with("nan:")) {
    std::uint64_t bits = 0;
    const char* const end = string->data() + string->size();
    const auto result = std::from_chars(string->data() + 4, end, bits, 16);
    if (result.ec == std::errc() && result.ptr == end) return std::bit_cast<double>(bits);
  }
  throw Error(storage::StatusCode::corrupt, "the checkpoint holds " + text.dump() + " where a \"$double\" belongs");
}

bool has_one_dollar_key(const nlohmann::json& object) {
  return object.size() == 1 && object.begin().key().starts_with('$');
}

/// Whether encode_non_finite() changes anything in it.
bool needs_encoding(const nlohmann::json& plain) {
  if (plain.is_number_float()) return !std::isfinite(plain.get<double>());
  if (!plain.is_structured()) return false;
  if (plain.is_object() && has_one_dollar_key(plain)) return true;
  return std::any_of(plain.begin(), plain.end(), needs_encoding);
}

bool needs_decoding(const nlohmann::json& encoded) {
  if (!encoded.is_structured()) return false;
  if (encoded.is_object() && has_one_dollar_key(encoded)) return true;
  return std::any_of(encoded.begin(), encoded.end(), needs_decoding);
}

}  // namespace

bool is_utf8(const nlohmann::json& value) {
  if (value.is_string()) return storage::is_utf8(value.get_ref<const std::string&>());
  if (value.is_object()) {
    const auto& items = value.get_ref<const nlohmann::json::object_t&>();
    return std::all_of(items.begin(), items.end(),
                       [](const auto& item) { return storage::is_utf8(item.first) && is_utf8(item.second); });
  }
  return !value.is_array() || std::all_of(value.begin(), value.end(), is_utf8);
}

nlohmann::json encode_non_finite(nlohmann::json plain) {
  if (!needs_encoding(plain)) return plain;
  if (plain.is_number_float()) return {{kDouble, text_of(plain.get<double>())}};
  if (plain.is_object()) {
    nlohmann::json encoded = nlohmann::json::object();
    const std::string escape = has_one_dollar_key(plain) ? "$" : "";
    for (const auto& [key, value] : plain.items()) encoded[escape + key] = encode_non_finite(value);
    return encoded;
  }
  nlohmann::json encoded = nlohmann::json::array();
  for (const auto& value : plain) encoded.push_back(encode_non_finite(value));
  return encoded;
}

nlohmann::json decode_non_finite(const nlohmann::json& encoded) {
  if (!needs_decoding(encoded)) return encoded;
  if (encoded.is_object()) {
    const bool escaped = has_one_dollar_key(encoded);
    if (escaped && encoded.begin().key() == kDouble) return parse(encoded.begin().value());
    nlohmann::json plain = nlohmann::json::object();
    for (const auto& [key, value] : encoded.items()) plain[escaped ? key.substr(1) : key] = decode_non_finite(value);
    return plain;
  }
  nlohmann::json plain = nlohmann::json::array();
  for (const auto& value : encoded) plain.push_back(decode_non_finite(value));
  return plain;
}

}  // namespace holdfast
