// A value as ranks send it to each other. CBOR keeps every bit of a number, and NaN.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "holdfast/runtime/error.h"

namespace holdfast {

inline std::string to_bytes(const nlohmann::json& value) {
  std::string bytes;
  nlohmann::json::to_cbor(value, bytes);
  return bytes;
}

/// Throws Error(corrupt) if `bytes` are not a value.
inline nlohmann::json from_bytes(const std::string& bytes) {
  try {
    return nlohmann::json::from_cbor(bytes);
  } catch (const nlohmann::json::exception&) {
    throw Error(storage::StatusCode::corrupt,
                "received a malformed value from another rank; start the same build of the program on all hosts");
  }
}

}  // namespace holdfast
