#include "holdfast/storage/formats/dtype.h"

#include <array>

namespace holdfast::storage {
namespace {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  std::size_t bytes;
};

// In the order of the enum, so that a Dtype is its own row's index.
constexpr std::array<DtypeRow, 19> kRows{{
    {Dtype::boolean, "BOOL", 1},
    {Dtype::u8, "U8", 1},
    {Dtype::i8, "I8", 1},
    {Dtype::f8_e5m2, "F8_E5M2", 1},
    {Dtype::f8_e4m3, "F8_E4M3", 1},
    {Dtype::f8_e8m0, "F8_E8M0", 1},
    {Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 1},
    {Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 1},
    {Dtype::u16, "U16", 2},
    {Dtype::i16, "I16", 2},
    {Dtype::f16, "F16", 2},
    {Dtype::bf16, "BF16", 2},
    {Dtype::u32, "U32", 4},
    {Dtype::i32, "I32", 4},
    {Dtype::f32, "F32", 4},
    {Dtype::c64, "C64", 8},
    {Dtype::u64, "U64", 8},
    {Dtype::i64, "I64", 8},
    {Dtype::f64, "F64", 8},
}};

constexpr bool rows_follow_the_enum() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_follow_the_enum());

constexpr std::array<Dtype, kRows.size()> list_dtypes() {
  std::array<Dtype, kRows.size()> dtypes{};
  for (std::size_t i = 0; i < kRows.size(); ++i) dtypes[i] = kRows[i].dtype;
  return dtypes;
}
constexpr std::array<Dtype, kRows.size()> kDtypes = list_dtypes();

}  // namespace

std::span<const Dtype> all_dtypes() { return kDtypes; }

std::size_t element_size(Dtype dtype) { return kRows[static_cast<std::size_t>(dtype)].bytes; }

std::string_view to_string(Dtype dtype) { return kRows[static_cast<std::size_t>(dtype)].name; }

std::optional<Dtype> parse_dtype(std::string_view name) {
  for (const DtypeRow& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace holdfast::storage
