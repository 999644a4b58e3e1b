// SampleOrder: the order in which one epoch visits a dataset, a pure function of (size, seed, epoch). Position i costs
// the same wherever it is, so seeking into the middle of an epoch is free and nothing but three numbers is ever saved.
//
// Shuffled orders are a keyed bijection of [0, 2^b), b = the bits of size - 1: an alternating Feistel network, whose
// halves take turns in being changed by a keyed hash of the other, walked along its cycle until it lands below `size`
// (fewer than two rounds of the network on average). Sources: Black and Rogaway, "Ciphers with arbitrary finite
// domains", CT-RSA 2002 (cycle walking); Mitchell, Stokes, Frank, Holmes, "Bandwidth-optimal random shuffling for
// GPUs", ACM TOPC 2022 (Feistel networks for shuffling).
//
// The order is part of what a checkpoint means: it is the same on every platform and never changes (a test holds it to
// recorded values). `kSampleOrderVersion` stands in every saved loader state.
#pragma once

#include <array>
#include <cstdint>

namespace holdfast {

inline constexpr int kSampleOrderVersion = 1;

/// A value; any thread may call its const members.
class SampleOrder {
 public:
  /// `shuffle` false: the identity, whatever the seed.
  SampleOrder(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch, bool shuffle);

  std::uint64_t size() const { return size_; }
  /// The sample at a position. REQUIRES: position < size().
  std::uint64_t operator[](std::uint64_t position) const;

 private:
  static constexpr int kRounds = 32;
  std::uint64_t size_;
  bool shuffle_;
  int low_bits_ = 0;   // width of the half that even rounds change
  int high_bits_ = 0;  // width of the half that odd rounds change
  std::array<std::uint64_t, kRounds> keys_{};
};

}  // namespace holdfast
