// Numbers that JSON cannot represent. nlohmann::json prints finite doubles so that they are read back exactly (also
// -0.0), but turns NaN and the infinities into null. These two functions preserve them:
//
//   infinity     {"$double": "inf"}   and  {"$double": "-inf"}
//   quiet NaN    {"$double": "nan"}
//   other NaN    {"$double": "nan:7ff8000000000123"}   its 64 bits, so that sign and payload survive
//   an object whose only key starts with '$'            gets one more '$' in front of that key
#pragma once

#include <nlohmann/json.hpp>

namespace holdfast {

/// Whether every string in it is UTF-8, as JSON requires.
bool is_utf8(const nlohmann::json& value);

/// Replaces the numbers that JSON cannot represent.
nlohmann::json encode_non_finite(nlohmann::json plain);
/// The inverse. Throws Error (corrupt) for a "$double" that matches none of the forms above.
nlohmann::json decode_non_finite(const nlohmann::json& encoded);

}  // namespace holdfast
