#include "data/sample_order.h"

#include <bit>

#include "splitmix64.h"

namespace holdfast {

SampleOrder::SampleOrder(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch, bool shuffle)
    : size_(size), shuffle_(shuffle && size > 1) {
  if (!shuffle_) return;
  const int bits = static_cast<int>(std::bit_width(size - 1));
  high_bits_ = bits / 2;
  low_bits_ = bits - high_bits_;
  std::uint64_t key = splitmix64(splitmix64(seed) + epoch);
  for (auto& round_key : keys_) round_key = key = splitmix64(key);
}

std::uint64_t SampleOrder::operator[](std::uint64_t position) const {
  if (!shuffle_) return position;
  const std::uint64_t low_mask = (std::uint64_t{1} << low_bits_) - 1;
  const std::uint64_t high_mask = (std::uint64_t{1} << high_bits_) - 1;
  std::uint64_t value = position;
  do {
    std::uint64_t low = value & low_mask;
    std::uint64_t high = value >> low_bits_;
    for (int round = 0; round < kRounds; round += 2) {
      low ^= splitmix64(keys_[round] ^ high) & low_mask;
      high ^= splitmix64(keys_[round + 1] ^ low) & high_mask;
    }
    value = high << low_bits_ | low;
  } while (value >= size_);
  return value;
}

}  // namespace holdfast
