// The common parts of the three journal entries: the frame (kind and format first, the digest of all bytes before it
// last) and the reading of typed fields. FORMAT.md, "Entries".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/object_name.h"

namespace holdfast::storage {

/// JSON text in one line. Bytes that are not UTF-8 become U+FFFD, numbers that are not finite become null.
std::string to_text(const nlohmann::json& value);

/// Whether a reader accepts to_text() of `value`, which lies `depth` levels deep in an entry. `invalid`, with a
/// sentence that begins with `what`, if it nests too deep, is not a value, or has two keys that become equal.
Status check_json(const nlohmann::json& value, int depth, const std::string& what);

/// Builds an entry line by line.
class EntryWriter {
 public:
  explicit EntryWriter(std::string_view kind);
  void field(std::string_view key, const nlohmann::json& value);
  /// Like field(), but writes a null value as the empty object.
  void object(std::string_view key, const nlohmann::json& value);
  /// `"key":` and an opening bracket; then members, one a line, and the closing bracket.
  void begin_lines(std::string_view key, char bracket);
  void line(std::string_view text);
  /// Begins a line; the caller appends its content to the returned text.
  std::string& begin_line();
  void end_lines(char bracket);
  /// The whole entry, digest line included.
  std::string finish() &&;

 private:
  std::string text_;
  bool first_line_ = true;
};

/// Checks the frame: digest, strict JSON, kind, format version and needed features, in this order. The caller checks
/// the fields.
Result<nlohmann::json> read_entry(std::string_view bytes, std::string_view kind);
/// The two halves of read_entry(): check_digest() checks the digest of the entry's bytes, read_fields() everything
/// else, on a text that begins and ends like the entry.
Status check_digest(std::string_view bytes, std::string_view kind);
Result<nlohmann::json> read_fields(std::string_view text, std::string_view kind);

/// Takes typed fields out of an entry and keeps the first problem, so that a decoder reads as a list of fields.
class FieldReader {
 public:
  /// `what` is the subject of a problem's sentence: "the manifest".
  FieldReader(const nlohmann::json& object, std::string what) : object_(object), what_(std::move(what)) {}

  std::string text(const char* key);
  std::uint64_t number(const char* key);
  std::int64_t integer(const char* key);
  bool boolean(const char* key);
  nlohmann::json object(const char* key);
  Uid uid(const char* key);
  std::optional<Uid> uid_or_null(const char* key);
  std::vector<Uid> uids(const char* key);
  Digest digest(const char* key);
  std::vector<std::int64_t> extents(const char* key);

  bool has(const char* key) const { return object_.contains(key); }
  /// Records a problem that the caller found; only the first one counts.
  void fail(const std::string& problem);
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

 private:
  const nlohmann::json* find(const char* key);

  const nlohmann::json& object_;
  std::string what_;
  Status status_;
};

}  // namespace holdfast::storage
