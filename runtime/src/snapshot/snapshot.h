// What a save writes: everything that is tracked, as it is at one boundary.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/run/payload.h"

namespace holdfast {

/// The state at one boundary. The tensors refer to the live ones: they must not change until they are written.
struct Snapshot {
  std::vector<storage::TensorSource> tensors;  // by name
  std::map<std::string, std::string> tied;     // alias → the name its bytes are stored under
  std::set<std::string> may_differ;            // tensors that may be rank-local: buffers, generators, …
  nlohmann::json values = nlohmann::json::object();
};

}  // namespace holdfast
