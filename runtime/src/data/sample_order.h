// SampleOrder: the order in which one epoch visits a dataset, a pure function of (size, seed, epoch). Every position
// costs the same, so seeking into the middle of an epoch is free and only three numbers are saved.
//
// Shuffled orders are a keyed bijection of [0, 2^b), where b is the number of bits of size - 1. An alternating Feistel
// network, in which each half is changed in turn by a keyed hash of the other, is applied until the result is below
// `size` (fewer than two applications on average). Sources: Black and Rogaway, "Ciphers with arbitrary finite domains",
// CT-RSA 2002 (cycle walking); Mitchell, Stokes, Frank, Holmes, "Bandwidth-optimal random shuffling for GPUs", ACM TOPC
// 2022 (Feistel networks for shuffling).
//
// Checkpoints depend on the order: it is the same on every platform and never changes (a test compares it with recorded
// values). Every saved loader state contains `kSampleOrderVersion`.
#pragma once

#include <array>
#include <cstdint>

namespace holdfast {

inline constexpr int kSampleOrderVersion = 1;

/// A value; any thread may call its const members.
class SampleOrder {
 public:
  /// `shuffle` false: the identity for every seed.
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
