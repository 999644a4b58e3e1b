// A status as ranks send it to each other.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "holdfast/storage/status.h"

namespace holdfast::storage {

inline void to_json(nlohmann::json& json, const Status& status) {
  json = {static_cast<int>(status.code()), status.message()};
}

inline void from_json(const nlohmann::json& json, Status& status) {
  const auto code = static_cast<StatusCode>(json.at(0).get<int>());
  status = code == StatusCode::ok ? Status() : Status(code, json.at(1).get<std::string>());
}

}  // namespace holdfast::storage
