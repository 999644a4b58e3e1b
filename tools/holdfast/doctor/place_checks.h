// What a probe of a folder means for a run in it. Functions of what was found.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "doctor/check.h"
#include "doctor/place_probe.h"
#include "holdfast/runtime/platform/profile.h"

namespace holdfast::tools {

/// `mount`: that holds the folder; null if unknown. The remedies come in the order of the checks: what loses work comes
/// first.
Checks place_checks(const std::string& folder, const PlaceFacts& facts, const Mount* mount, const Loss& loss);

/// The space of a folder whose platform limits it: `used` bytes are there already. The file system's own figures may be
/// those of another disk.
Check quota_check(const Quota& quota, std::uint64_t used);

}  // namespace holdfast::tools
