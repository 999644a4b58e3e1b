#include "tensors/dtype.h"

#include <utility>

namespace holdfast {
namespace {

using c10::ScalarType;
using storage::Dtype;

constexpr std::pair<ScalarType, Dtype> kTypes[] = {
    {ScalarType::Bool, Dtype::boolean},
    {ScalarType::Byte, Dtype::u8},
    {ScalarType::Char, Dtype::i8},
    {ScalarType::Float8_e5m2, Dtype::f8_e5m2},
    {ScalarType::Float8_e4m3fn, Dtype::f8_e4m3},
    {ScalarType::Float8_e8m0fnu, Dtype::f8_e8m0},
    {ScalarType::Float8_e4m3fnuz, Dtype::f8_e4m3fnuz},
    {ScalarType::Float8_e5m2fnuz, Dtype::f8_e5m2fnuz},
    {ScalarType::UInt16, Dtype::u16},
    {ScalarType::Short, Dtype::i16},
    {ScalarType::Half, Dtype::f16},
    {ScalarType::BFloat16, Dtype::bf16},
    {ScalarType::UInt32, Dtype::u32},
    {ScalarType::Int, Dtype::i32},
    {ScalarType::Float, Dtype::f32},
    {ScalarType::ComplexFloat, Dtype::c64},
    {ScalarType::UInt64, Dtype::u64},
    {ScalarType::Long, Dtype::i64},
    {ScalarType::Double, Dtype::f64},
};

}  // namespace

std::optional<Dtype> to_dtype(ScalarType type) {
  for (const auto& [scalar_type, dtype] : kTypes) {
    if (scalar_type == type) return dtype;
  }
  return std::nullopt;
}

ScalarType to_scalar_type(Dtype dtype) {
  for (const auto& [scalar_type, known] : kTypes) {
    if (known == dtype) return scalar_type;
  }
  return ScalarType::Undefined;
}

}  // namespace holdfast
