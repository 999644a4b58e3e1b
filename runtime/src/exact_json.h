// Numbers that JSON cannot write. nlohmann::json prints finite doubles so that they read back to the same bits (-0.0
// too) and turns NaN and the infinities into null; these two functions carry them through instead:
//
//   infinity     {"$double": "inf"}   and  {"$double": "-inf"}
//   quiet NaN    {"$double": "nan"}
//   other NaN    {"$double": "nan:7ff8000000000123"}   its 64 bits, so that sign and payload survive
//   an object whose only key starts with '$'            gets one more '$' in front of that key
#pragma once

#include <nlohmann/json.hpp>

namespace holdfast {

/// Whether every string in it is UTF-8, as JSON's must be.
bool is_utf8(const nlohmann::json& value);

/// A tree with no number that JSON cannot write.
nlohmann::json encode_non_finite(nlohmann::json plain);
/// The inverse. Throws Error (corrupt) for a "$double" that follows no rule above.
nlohmann::json decode_non_finite(const nlohmann::json& encoded);

}  // namespace holdfast
