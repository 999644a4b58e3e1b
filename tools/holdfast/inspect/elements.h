// The numbers in a tensor's bytes, for every dtype: each as the type that holds it exactly.
// Formats: IEEE 754 binary16; bfloat16; OCP "8-bit Floating Point Specification" 1.0 (E5M2, E4M3) and "Microscaling
// Formats" 1.0 (E8M0); the FNUZ variants of "8-bit Numerical Formats for Deep Neural Networks" (arXiv:2206.02915).
#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "holdfast/storage/formats/dtype.h"

namespace holdfast::tools {

/// A small float with `exponent_bits` and `mantissa_bits`. NaN must be handled by the caller.
constexpr double small_float(std::uint32_t bits, int exponent_bits, int mantissa_bits, int bias) {
  const std::uint32_t mantissa = bits & ((1U << mantissa_bits) - 1);
  const std::uint32_t exponent = (bits >> mantissa_bits) & ((1U << exponent_bits) - 1);
  const bool negative = (bits >> (exponent_bits + mantissa_bits)) & 1U;
  const std::uint32_t significand = exponent == 0 ? mantissa : mantissa | (1U << mantissa_bits);
  double value = significand;
  for (int power = static_cast<int>(exponent == 0 ? 1 : exponent) - bias - mantissa_bits; power != 0;) {
    value = power > 0 ? value * 2 : value / 2;
    power += power > 0 ? -1 : 1;
  }
  return negative ? -value : value;
}

template <class Stored>
Stored stored_at(const std::byte* at) {
  Stored value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class Stored>
struct Native {
  using Value = std::conditional_t<std::is_floating_point_v<Stored>, double,
                                   std::conditional_t<std::is_signed_v<Stored>, std::int64_t, std::uint64_t>>;
  static constexpr std::size_t kBytes = sizeof(Stored);
  static Value load(const std::byte* at) { return static_cast<Value>(stored_at<Stored>(at)); }
};

struct Boolean {
  using Value = std::uint64_t;
  static constexpr std::size_t kBytes = 1;
  static Value load(const std::byte* at) { return *at == std::byte{0} ? 0 : 1; }
};

struct Half {
  using Value = double;
  static constexpr std::size_t kBytes = 2;
  static Value load(const std::byte* at) {
    const std::uint32_t bits = stored_at<std::uint16_t>(at);
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t rest = bits & 0x7FFFU;
    if (rest < 0x0400U) {  // zero and subnormal
      const double magnitude = rest / 16777216.0;
      return sign ? -magnitude : magnitude;
    }
    const std::uint32_t wide = rest >= 0x7C00U ? 0x7F800000U | ((rest & 0x3FFU) << 13) : (rest << 13) + (112U << 23);
    const std::uint32_t all = sign | wide;
    float value;
    std::memcpy(&value, &all, sizeof value);
    return value;
  }
};

struct BFloat16 {
  using Value = double;
  static constexpr std::size_t kBytes = 2;
  static Value load(const std::byte* at) {
    const std::uint32_t wide = static_cast<std::uint32_t>(stored_at<std::uint16_t>(at)) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
};

/// For eight bits a table is small enough.
template <double (*Decode)(std::uint32_t)>
struct Byte8 {
  using Value = double;
  static constexpr std::size_t kBytes = 1;
  static Value load(const std::byte* at) {
    static const auto table = [] {
      struct {
        double values[256];
      } made{};
      for (std::uint32_t bits = 0; bits < 256; ++bits) made.values[bits] = Decode(bits);
      return made;
    }();
    return table.values[static_cast<std::uint8_t>(*at)];
  }
};

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline double f8_e5m2(std::uint32_t bits) {
  if ((bits & 0x7C) == 0x7C) return (bits & 3) ? kNan : (bits & 0x80) ? -kInfinity : kInfinity;
  return small_float(bits, 5, 2, 15);
}
inline double f8_e4m3(std::uint32_t bits) { return (bits & 0x7F) == 0x7F ? kNan : small_float(bits, 4, 3, 7); }
inline double f8_e8m0(std::uint32_t bits) {
  return bits == 0xFF ? kNan : std::ldexp(1.0, static_cast<int>(bits) - 127);
}
inline double f8_e4m3fnuz(std::uint32_t bits) { return bits == 0x80 ? kNan : small_float(bits, 4, 3, 8); }
inline double f8_e5m2fnuz(std::uint32_t bits) { return bits == 0x80 ? kNan : small_float(bits, 5, 2, 16); }

struct Complex64 {
  using Value = std::complex<double>;
  static constexpr std::size_t kBytes = 8;
  static Value load(const std::byte* at) { return {stored_at<float>(at), stored_at<float>(at + 4)}; }
};

/// Calls `visit` with the element type of `dtype`, default-constructed: it has `Value`, `kBytes` and `load`.
template <class Visit>
decltype(auto) with_element(storage::Dtype dtype, Visit&& visit) {
  using storage::Dtype;
  switch (dtype) {
    case Dtype::boolean:
      return visit(Boolean{});
    case Dtype::u8:
      return visit(Native<std::uint8_t>{});
    case Dtype::i8:
      return visit(Native<std::int8_t>{});
    case Dtype::f8_e5m2:
      return visit(Byte8<f8_e5m2>{});
    case Dtype::f8_e4m3:
      return visit(Byte8<f8_e4m3>{});
    case Dtype::f8_e8m0:
      return visit(Byte8<f8_e8m0>{});
    case Dtype::f8_e4m3fnuz:
      return visit(Byte8<f8_e4m3fnuz>{});
    case Dtype::f8_e5m2fnuz:
      return visit(Byte8<f8_e5m2fnuz>{});
    case Dtype::u16:
      return visit(Native<std::uint16_t>{});
    case Dtype::i16:
      return visit(Native<std::int16_t>{});
    case Dtype::f16:
      return visit(Half{});
    case Dtype::bf16:
      return visit(BFloat16{});
    case Dtype::u32:
      return visit(Native<std::uint32_t>{});
    case Dtype::i32:
      return visit(Native<std::int32_t>{});
    case Dtype::f32:
      return visit(Native<float>{});
    case Dtype::c64:
      return visit(Complex64{});
    case Dtype::u64:
      return visit(Native<std::uint64_t>{});
    case Dtype::i64:
      return visit(Native<std::int64_t>{});
    case Dtype::f64:
      break;
  }
  return visit(Native<double>{});
}

inline bool is_nan(double value) { return std::isnan(value); }
inline bool is_nan(std::complex<double> value) { return std::isnan(value.real()) || std::isnan(value.imag()); }
inline bool is_nan(std::int64_t) { return false; }
inline bool is_nan(std::uint64_t) { return false; }

}  // namespace holdfast::tools
