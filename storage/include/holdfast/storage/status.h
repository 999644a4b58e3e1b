// Status and Result<T>: how the storage library reports outcomes. Missing, torn or locked files are ordinary
// outcomes that callers branch on, so the library does not throw. The runtime converts a Status once, at its boundary.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace holdfast::storage {

enum class StatusCode {
  ok,                 // the call did what was asked
  not_found,          // the object or folder is not there
  already_exists,     // create-only refused: an object of this name exists
  permission_denied,  // EACCES, EPERM
  read_only,          // EROFS
  no_space,           // ENOSPC, EDQUOT, EFBIG
  name_too_long,      // ENAMETOOLONG
  unreadable,         // EIO, ENOTCONN, ESTALE, …: the access failed, the bytes may be intact; may pass
  incomplete,         // a file is missing or short; it may still arrive
  corrupt,            // bytes do not match their digest, or do not follow the format
  misfit,             // the checkpoint and the program are incompatible; never a reason to fall back
  superseded,         // a later session owns the run
  busy,               // a living process on this host owns the run; may pass
  unknown,            // published, but not proven durable: neither acknowledged nor removed
  unsupported,        // this store, format version or dtype cannot do that
  invalid,            // the caller asked for something that makes no sense
};

/// The code's name as written in the enum, for messages and JSON.
std::string_view to_string(StatusCode code);

/// Whether the same call, tried again a moment later, would end in the same way. It is false only for codes that may
/// pass: they describe an access, not what was accessed. (`incomplete` is permanent in this sense: what is missing has
/// to arrive first, which takes longer than a retry may wait.)
bool is_permanent(StatusCode code);

/// A code and one sentence for the user that names the object and, if one exists, the remedy.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {
    assert(code != StatusCode::ok);
  }
  bool ok() const { return code_ == StatusCode::ok; }
  explicit operator bool() const { return ok(); }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

/// Either a value or a Status that is not ok.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit, so that `return value;` reads well
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT: as above
  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }
  StatusCode code() const { return status_.code(); }

  /// REQUIRES: ok().
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  /// By value, so that in `for (auto& x : *f())` the range outlives the loop.
  T operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace holdfast::storage
