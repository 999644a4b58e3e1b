// What a program's configuration file and environment say about where its runs go, and the file that a machine needs.
// Programs read many more options (runtime's options.h); these are the ones that decide about folders.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/platform/platform.h"
#include "holdfast/runtime/platform/profile.h"
#include "holdfast/storage/status.h"

namespace holdfast::tools {

struct Configuration {
  std::string platform;       // empty: it is detected
  std::string platform_from;  // "HOLDFAST_PLATFORM", "kaggle.json"
  std::string dir;            // empty: the platform's default
  /// Empty: the platform's default, which holds together with its folder of runs only.
  std::optional<std::vector<std::string>> mirrors;
};

/// HOLDFAST_PLATFORM, HOLDFAST_DIR and HOLDFAST_MIRROR win over the file; HOLDFAST_CONFIG names the file if `path` is
/// empty. Errors: the file cannot be read, is not a JSON object, or names an unknown platform.
storage::Result<Configuration> read_configuration(std::string path, const Surroundings& around);

/// Create-only. The comments in the file give the reasons.
storage::Status write_configuration(const std::string& path, const Platform& platform, const Profile& profile,
                                    const std::string& dir, const std::vector<std::string>& mirrors);

}  // namespace holdfast::tools
