// A run's metrics: JSON lines, one file per session, `{"step":…, …}` each. A resumed session may repeat steps that an
// earlier one already logged, so a reader takes each step from the later session.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "holdfast/storage/run/history.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// Every step once, sorted by step; the records of one step are merged within a session. Torn last lines are skipped.
Result<std::vector<nlohmann::json>> read_metrics(const Store& store, const History& history);

}  // namespace holdfast::storage
