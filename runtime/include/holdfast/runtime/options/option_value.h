// OptionValue: what a program writes into SessionOptions. It is a value, or the text that a user would write for it;
// the session reads texts once, when it starts, and reports a wrong one with the option's name.
#pragma once

#include <chrono>
#include <concepts>
#include <optional>
#include <string>
#include <utility>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace detail {

std::string text_of(std::chrono::nanoseconds duration);
template <class T>
std::string text_of(const T& value) {
  return to_string(value);
}

/// What an option of type T takes as a value: what converts to T implicitly and is not a text.
template <class Value, class T>
concept ValueOf = std::convertible_to<Value, T> && !std::convertible_to<Value, std::string>;

}  // namespace detail

/// `T` is a duration or has to_string(), whose text is what messages and --holdfast.help show.
template <class T>
class OptionValue {
 public:
  OptionValue(const char* text) : text_(text) {}             // NOLINT(google-explicit-constructor): .every = "10min"
  OptionValue(std::string text) : text_(std::move(text)) {}  // NOLINT(google-explicit-constructor)
  template <detail::ValueOf<T> Value>
  OptionValue(Value value)  // NOLINT(google-explicit-constructor): .every = SaveEvery{.steps = 500}
      : value_(std::move(value)), text_(detail::text_of(*value_)) {}

  /// A text that was read: `text` is what the user wrote.
  OptionValue(T value, std::string text) : value_(std::move(value)), text_(std::move(text)) {}

  /// Throws Error(invalid) if it is still an unread text.
  const T& value() const {
    if (!value_) throw Error(storage::StatusCode::invalid, "'" + text_ + "' was not read yet: Session::start reads it");
    return *value_;
  }
  const T& operator*() const { return value(); }
  const T* operator->() const { return &value(); }
  bool is_text() const { return !value_; }
  const std::string& text() const { return text_; }

 private:
  std::optional<T> value_;
  std::string text_;
};

}  // namespace holdfast
