#include "formats/entry_text.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "formats/strict_json.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/text/text.h"

namespace holdfast::storage {

using nlohmann::json;

namespace {

// `"digest":"` 32 digits `"}` and the line's end.
constexpr std::string_view kDigestKey = "\"digest\":\"";
constexpr std::string_view kDigestEnd = "\"}\n";
constexpr std::size_t kDigestLine = kDigestKey.size() + 32 + kDigestEnd.size();

std::string name_of(std::string_view kind) {
  return kind == "save" ? "the manifest" : "the " + std::string(kind) + " entry";
}

}  // namespace

std::string to_text(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

Status check_json(const json& value, int depth, const std::string& what) {
  const auto invalid = [&](const std::string& problem) { return Status(StatusCode::invalid, what + " " + problem); };
  if (value.is_discarded()) return invalid("is the result of a failed json::parse and cannot be saved");
  if (!value.is_structured() && !value.is_binary()) return {};
  // A binary value is written as an object with a list in it.
  if (depth + (value.is_binary() ? 2 : 1) > kMaxEntryDepth) {
    return invalid("nests deeper than the " + std::to_string(kMaxEntryDepth) +
                   " levels that can be read back: flatten it, or track it as a tensor");
  }
  if (value.is_binary()) return {};
  if (value.is_object()) {
    // Bytes that are not UTF-8 are replaced, after which two keys may be the same.
    const auto& object = value.get_ref<const json::object_t&>();
    const bool plain = std::all_of(object.begin(), object.end(), [](const auto& item) { return is_utf8(item.first); });
    std::set<std::string> keys;
    for (const auto& [key, item] : object) {
      if (!plain && !keys.insert(to_text(key)).second) {
        return invalid("has two keys that are not UTF-8 and would become one, " + to_text(key) + ": rename them");
      }
    }
  }
  for (const json& item : value) {
    if (Status status = check_json(item, depth + 1, what); !status) return status;
  }
  return {};
}

EntryWriter::EntryWriter(std::string_view kind) {
  text_ = "{\"holdfast\":\"" + std::string(kind) + "\",\"format\":" + std::to_string(kFormatVersion);
}

void EntryWriter::field(std::string_view key, const json& value) {
  text_.append(",\n\"").append(key).append("\":").append(to_text(value));
}

void EntryWriter::object(std::string_view key, const json& value) {
  if (value.is_null()) {
    field(key, json::object());
  } else {
    field(key, value);
  }
}

void EntryWriter::begin_lines(std::string_view key, char bracket) {
  text_.append(",\n\"").append(key).append("\":") += bracket;
  first_line_ = true;
}

void EntryWriter::line(std::string_view text) { begin_line().append(text); }

std::string& EntryWriter::begin_line() {
  text_.append(std::exchange(first_line_, false) ? "\n" : ",\n");
  return text_;
}

void EntryWriter::end_lines(char bracket) {
  if (!first_line_) text_ += '\n';
  text_ += bracket;
}

std::string EntryWriter::finish() && {
  text_.append(",\n");
  const std::string digest = digest_of(text_).hex();
  text_.append(kDigestKey).append(digest).append(kDigestEnd);
  return std::move(text_);
}

Status check_digest(std::string_view bytes, std::string_view kind) {
  const auto corrupt = [&](const std::string& problem) {
    return Status(StatusCode::corrupt, name_of(kind) + " " + problem);
  };
  const std::size_t body = bytes.size() < kDigestLine ? 0 : bytes.size() - kDigestLine;
  const std::string_view last = bytes.substr(body);
  if (body == 0 || bytes[body - 1] != '\n' || last.substr(0, kDigestKey.size()) != kDigestKey ||
      last.substr(last.size() - kDigestEnd.size()) != kDigestEnd) {
    return corrupt("does not end with its digest: it is cut short or damaged");
  }
  const auto digest = Digest::parse(last.substr(kDigestKey.size(), 32));
  if (!digest || *digest != digest_of(bytes.substr(0, body))) return corrupt("does not match its digest");
  return {};
}

Result<json> read_entry(std::string_view bytes, std::string_view kind) {
  if (Status status = check_digest(bytes, kind); !status) return status;
  return read_fields(bytes, kind);
}

Result<json> read_fields(std::string_view text, std::string_view kind) {
  const std::string what = name_of(kind);
  const auto corrupt = [&](const std::string& problem) { return Status(StatusCode::corrupt, what + " " + problem); };
  auto entry = parse_strict_json(text, kMaxEntryDepth, what);
  if (!entry) return entry;
  if (!entry->contains("holdfast") || (*entry)["holdfast"] != json(kind)) {
    return corrupt("does not identify itself as a Holdfast \"" + std::string(kind) + "\" entry");
  }
  FieldReader fields(*entry, what);
  const std::uint64_t format = fields.number("format");
  if (!fields.ok()) return fields.status();
  if (format == 0) return corrupt("has format 0, which never existed");
  if (format > kFormatVersion) {
    return Status(StatusCode::unsupported, what + " has format " + std::to_string(format) +
                                               ", this Holdfast reads up to " + std::to_string(kFormatVersion) +
                                               ": use a newer Holdfast");
  }
  if (entry->contains("needs_features")) {
    const json& features = (*entry)["needs_features"];
    if (!features.is_array()) return corrupt("has a \"needs_features\" that is not a list");
    for (const json& feature : features) {
      if (!feature.is_string()) return corrupt("has a \"needs_features\" that does not list names");
      // Format 1 has no features, so every feature is from a later release.
      return Status(StatusCode::unsupported, what + " needs the feature " +
                                                 in_quotes(feature.get_ref<const std::string&>()) +
                                                 ", which this Holdfast does not know: use a newer Holdfast");
    }
  }
  return entry;
}

const json* FieldReader::find(const char* key) {
  if (auto found = object_.find(key); found != object_.end()) return &*found;
  fail("has no \"" + std::string(key) + "\"");
  return nullptr;
}

void FieldReader::fail(const std::string& problem) {
  if (status_.ok()) status_ = Status(StatusCode::corrupt, what_ + " " + problem);
}

std::string FieldReader::text(const char* key) {
  const json* value = find(key);
  if (value && value->is_string()) return value->get<std::string>();
  fail("has a \"" + std::string(key) + "\" that is not a string");
  return {};
}

std::uint64_t FieldReader::number(const char* key) {
  const json* value = find(key);
  if (value && value->is_number_unsigned()) return value->get<std::uint64_t>();
  fail("has a \"" + std::string(key) + "\" that is not a whole number of 0 or more");
  return 0;
}

std::int64_t FieldReader::integer(const char* key) {
  const std::uint64_t value = number(key);
  if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return static_cast<std::int64_t>(value);
  }
  fail("has a \"" + std::string(key) + "\" that is too large");
  return 0;
}

bool FieldReader::boolean(const char* key) {
  const json* value = find(key);
  if (value && value->is_boolean()) return value->get<bool>();
  fail("has a \"" + std::string(key) + "\" that is neither true nor false");
  return false;
}

json FieldReader::object(const char* key) {
  const json* value = find(key);
  if (value && value->is_object()) return *value;
  fail("has a \"" + std::string(key) + "\" that is not an object");
  return json::object();
}

Uid FieldReader::uid(const char* key) {
  const std::string value = text(key);
  if (auto uid = Uid::parse(value)) return *uid;
  fail("has a \"" + std::string(key) + "\" that is not a number and a session: " + in_quotes(value));
  return {};
}

std::optional<Uid> FieldReader::uid_or_null(const char* key) {
  const json* value = find(key);
  if (!value || value->is_null()) return std::nullopt;
  return uid(key);
}

std::vector<Uid> FieldReader::uids(const char* key) {
  const json* value = find(key);
  std::vector<Uid> uids;
  if (value && value->is_array()) {
    for (const json& item : *value) {
      const auto uid = item.is_string() ? Uid::parse(item.get_ref<const std::string&>()) : std::nullopt;
      if (!uid) fail("has a \"" + std::string(key) + "\" that does not list numbers and sessions");
      uids.push_back(uid.value_or(Uid{}));
    }
    return uids;
  }
  fail("has a \"" + std::string(key) + "\" that is not a list");
  return uids;
}

Digest FieldReader::digest(const char* key) {
  if (auto digest = Digest::parse(text(key))) return *digest;
  fail("has a \"" + std::string(key) + "\" that is not 32 hexadecimal digits");
  return {};
}

std::vector<std::int64_t> FieldReader::extents(const char* key) {
  const json* value = find(key);
  std::vector<std::int64_t> extents;
  if (value && value->is_array()) {
    for (const json& item : *value) {
      const bool fits =
          item.is_number_unsigned() &&
          item.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
      if (!fits) fail("has a \"" + std::string(key) + "\" that does not list whole numbers of 0 or more");
      extents.push_back(fits ? item.get<std::int64_t>() : 0);
    }
    return extents;
  }
  fail("has a \"" + std::string(key) + "\" that is not a list");
  return extents;
}

}  // namespace holdfast::storage
