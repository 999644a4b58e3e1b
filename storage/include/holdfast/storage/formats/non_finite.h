// Counts NaN and infinities among a tensor's elements while its bytes are streamed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "holdfast/storage/formats/dtype.h"

namespace holdfast::storage {

/// Counts over bytes that arrive in pieces, which may end within an element. Each part of a complex element counts
/// separately. The count is 0 for types without NaN and infinity.
class NonFiniteCounter {
 public:
  explicit NonFiniteCounter(Dtype dtype);
  /// Whether the type has NaN or infinity.
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
