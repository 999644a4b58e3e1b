#include "holdfast/runtime/options/option_types.h"

#include <fmt/format.h>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/options/option_value.h"
#include "holdfast/storage/text/units.h"

namespace holdfast {

namespace detail {

std::string text_of(std::chrono::nanoseconds duration) { return storage::format_duration(duration); }

}  // namespace detail

std::string to_string(DeviceKind kind) {
  constexpr const char* kNames[] = {"auto", "cpu", "cuda"};
  return kNames[static_cast<int>(kind)];
}

std::string to_string(Precision precision) {
  constexpr const char* kNames[] = {"auto", "fp32", "bf16", "fp16"};
  return kNames[static_cast<int>(precision)];
}

std::string to_string(LoadMode mode) { return mode == LoadMode::exact ? "exact" : "subset"; }

Precision parse_precision(const std::string& text) {
  for (const Precision one : {Precision::automatic, Precision::fp32, Precision::bf16, Precision::fp16}) {
    if (to_string(one) == text) return one;
  }
  throw Error(storage::StatusCode::invalid,
              fmt::format("'{}' is not a precision: choose auto, fp32, bf16 or fp16", text));
}

}  // namespace holdfast
