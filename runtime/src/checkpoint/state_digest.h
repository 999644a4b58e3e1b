// What ranks compare instead of the state itself: digests of tensors and values, as text.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <string>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/run/payload.h"

namespace holdfast {

/// Covers dtype, shape and bytes.
inline std::string digest_text(const storage::TensorSource& source) {
  return fmt::format("{} {} {}", to_string(source.dtype), fmt::join(source.shape, "x"), source.digest().hex());
}

inline std::string digest_text(const nlohmann::json& value) { return storage::digest_of(value.dump()).hex(); }

}  // namespace holdfast
