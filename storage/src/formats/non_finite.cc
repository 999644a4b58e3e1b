#include "holdfast/storage/formats/non_finite.h"

#include <algorithm>
#include <cstring>

namespace holdfast::storage {
namespace {

/// How many words equal a pattern under its mask; even and odd words each have their own mask and pattern.
template <class Word>
std::uint64_t count_words(std::span<const std::byte> bytes, std::array<Word, 2> mask, std::array<Word, 2> pattern) {
  // Every 64-bit processor has vectors of 16 bytes; the compiler maps them to the target's instructions.
  constexpr std::size_t kVectorBytes = 16;
  typedef Word Vector __attribute__((vector_size(kVectorBytes)));
  constexpr std::size_t kLanes = kVectorBytes / sizeof(Word);
  constexpr std::size_t kVectorsOfABlock = 255;  // the highest count of an 8-bit lane
  Vector masks, patterns;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    masks[lane] = mask[lane % 2];
    patterns[lane] = pattern[lane % 2];
  }

  std::uint64_t count = 0;
  while (bytes.size() >= kVectorBytes) {
    const std::size_t vectors = std::min(kVectorsOfABlock, bytes.size() / kVectorBytes);
    Vector matches{};
    for (std::size_t i = 0; i < vectors; ++i) {
      Vector words;
      std::memcpy(&words, bytes.data() + i * kVectorBytes, kVectorBytes);
      matches -= reinterpret_cast<Vector>((words & masks) == patterns);  // a matching lane is all ones, so -1
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) count += matches[lane];
    bytes = bytes.subspan(vectors * kVectorBytes);
  }
  for (std::size_t i = 0; i < bytes.size() / sizeof(Word); ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof word, sizeof word);
    count += (word & mask[i % 2]) == pattern[i % 2] ? 1 : 0;
  }
  return count;
}

template <class Word>
std::uint64_t count_words(std::span<const std::byte> bytes, Word mask, Word pattern) {
  return count_words<Word>(bytes, std::array{mask, mask}, std::array{pattern, pattern});
}

std::size_t number_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::f8_e5m2:
    case Dtype::f8_e4m3:
    case Dtype::f8_e8m0:
    case Dtype::f8_e4m3fnuz:
    case Dtype::f8_e5m2fnuz:
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::f32:
    case Dtype::f64:
      return element_size(dtype);
    case Dtype::c64:
      return 4;
    default:
      return 0;
  }
}

/// Counts in bytes that hold only whole numbers. NaN and infinity have all exponent bits set; the small types have
/// fewer such values.
std::uint64_t count_in(Dtype dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case Dtype::f8_e5m2:
      return count_words<std::uint8_t>(bytes, 0x7c, 0x7c);
    case Dtype::f8_e4m3:
      return count_words<std::uint8_t>(bytes, 0x7f, 0x7f);
    case Dtype::f8_e8m0:
      return count_words<std::uint8_t>(bytes, 0xff, 0xff);
    case Dtype::f8_e4m3fnuz:
    case Dtype::f8_e5m2fnuz:
      return count_words<std::uint8_t>(bytes, 0xff, 0x80);
    case Dtype::f16:
      return count_words<std::uint16_t>(bytes, 0x7c00, 0x7c00);
    case Dtype::bf16:
      return count_words<std::uint16_t>(bytes, 0x7f80, 0x7f80);
    case Dtype::f32:
    case Dtype::c64:
      return count_words<std::uint32_t>(bytes, 0x7f800000, 0x7f800000);
    case Dtype::f64:
      // Sign and exponent are in the second half (little-endian), and many processors compare 32 bits faster. The
      // pattern of the first half never matches.
      return count_words<std::uint32_t>(bytes, std::array<std::uint32_t, 2>{0, 0x7ff00000},
                                        std::array<std::uint32_t, 2>{1, 0x7ff00000});
    default:
      return 0;
  }
}

}  // namespace

NonFiniteCounter::NonFiniteCounter(Dtype dtype) : dtype_(dtype), number_bytes_(number_bytes(dtype)) {}

void NonFiniteCounter::update(std::span<const std::byte> bytes) {
  if (number_bytes_ == 0) return;
  if (cut_bytes_ > 0) {
    const std::size_t missing = std::min(number_bytes_ - cut_bytes_, bytes.size());
    std::copy_n(bytes.begin(), missing, cut_.begin() + static_cast<std::ptrdiff_t>(cut_bytes_));
    cut_bytes_ += missing;
    bytes = bytes.subspan(missing);
    if (cut_bytes_ < number_bytes_) return;
    count_ += count_in(dtype_, std::span(cut_).first(number_bytes_));
    cut_bytes_ = 0;
  }
  const std::size_t whole = bytes.size() / number_bytes_ * number_bytes_;
  count_ += count_in(dtype_, bytes.first(whole));
  cut_bytes_ = bytes.size() - whole;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(whole), cut_bytes_, cut_.begin());
}

}  // namespace holdfast::storage
