// SplitMix64's output function: a fixed bijection of 64-bit words in which every input bit changes about half of the
// output bits. Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the constants are
// David Stafford's variant 13. It must never change, because orders and sample seeds depend on it.
#pragma once

#include <cstdint>

namespace holdfast {

inline constexpr std::uint64_t splitmix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace holdfast
