// Numbers of a column: their types, their form in JSON, and conversion to the type that the program has now.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <nlohmann/json_fwd.hpp>

namespace holdfast::detail {

inline std::size_t width_of(c10::ScalarType type) { return c10::elementSize(type); }

/// Whether JSON represents numbers of this type exactly: a float's NaN would lose bits.
bool has_exact_json(c10::ScalarType type);
/// The value at `from`, of a type that has_exact_json().
nlohmann::json number_to_json(c10::ScalarType type, const std::byte* from);

enum class Fits { yes, out_of_range, other_type };

/// Copies `count` numbers of the type `saved` to numbers of the type `wanted`.
Fits convert_numbers(c10::ScalarType saved, const void* from, c10::ScalarType wanted, void* to, std::size_t count);

}  // namespace holdfast::detail
