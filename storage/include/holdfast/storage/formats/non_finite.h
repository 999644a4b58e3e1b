// Counts NaN and infinities among a tensor's elements while its bytes go by.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "holdfast/storage/formats/dtype.h"

namespace holdfast::storage {

/// Over bytes that arrive in pieces, which may end within an element. A complex element counts once for each of its
/// parts. Types that know neither NaN nor infinity have none.
class NonFiniteCounter {
 public:
  explicit NonFiniteCounter(Dtype dtype);
  /// Whether the type knows NaN or infinity at all.
  bool counts_anything() const { return number_bytes_ > 0; }
  void update(std::span<const std::byte> bytes);
  std::uint64_t count() const { return count_; }

 private:
  Dtype dtype_;
  std::size_t number_bytes_;  // of one number; 0: nothing to count
  std::uint64_t count_ = 0;
  std::array<std::byte, 8> cut_{};  // the beginning of a number whose rest comes with the next piece
  std::size_t cut_bytes_ = 0;
};

}  // namespace holdfast::storage
