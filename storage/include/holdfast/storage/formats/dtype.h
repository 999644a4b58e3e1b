// Element types that safetensors knows and LibTorch has, under safetensors' names.
// Source: huggingface/safetensors, safetensors/src/tensor.rs, enum Dtype (as of 0.6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace holdfast::storage {

// safetensors' name is the enumerator in capitals, except BOOL.
enum class Dtype : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,  // LibTorch: Float8_e4m3fn
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  c64,  // two f32
  u64,
  i64,
  f64,
};

/// Every Dtype, in the order above.
std::span<const Dtype> all_dtypes();
/// Bytes of one element.
std::size_t element_size(Dtype dtype);
/// safetensors' name, such as "BF16".
std::string_view to_string(Dtype dtype);
/// Empty for a name that is not in the list (such as F4 and other sub-byte types).
std::optional<Dtype> parse_dtype(std::string_view name);

}  // namespace holdfast::storage
