// The options of loops: how many iterations.
#pragma once

#include <concepts>
#include <cstdint>

#include "holdfast/runtime/data/whole_number.h"

namespace holdfast {

/// The number of iterations of a loop: any whole number from 0 on. Throws Error(invalid) for a negative number.
class LoopCount {
 public:
  template <std::integral T>
  constexpr LoopCount(T count) : count_(static_cast<std::uint64_t>(count)) {  // NOLINT: implicit, as a number is
    if constexpr (std::signed_integral<T>) {
      if (count < 0) refuse(static_cast<std::int64_t>(count));
    }
  }
  template <detail::StandsForWholeNumber<LoopCount> T>
  LoopCount(const T& count) : LoopCount(static_cast<std::int64_t>(count)) {}  // NOLINT: as above
  constexpr operator std::uint64_t() const { return count_; }                 // NOLINT: as above

 private:
  [[noreturn]] static void refuse(std::int64_t count);
  std::uint64_t count_;
};

namespace detail {

/// The count of a loop whose end the program decides by session.done() or by leaving it.
inline constexpr std::uint64_t kEndless = std::uint64_t{1} << 60;

}  // namespace detail

struct StepsOptions {
  LoopCount epochs = 1;  // of the loader, over all sessions of the run
};

struct CountOptions {
  LoopCount count = detail::kEndless;  // steps (or epochs of the program's own batches), over all sessions of the run
};

}  // namespace holdfast
