// A machine made of text: what a process would see there.
#pragma once

#include <map>
#include <string>

#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast::test {

/// `files` maps paths to contents; a folder's content is empty. `mounts` are lines of /proc/self/mountinfo.
inline Surroundings machine(std::map<std::string, std::string> environment,
                            std::map<std::string, std::string> files = {}, const std::string& mounts = {}) {
  Surroundings around;
  around.environment = std::move(environment);
  around.read = [files = std::move(files)](const std::string& path) -> std::optional<std::string> {
    const auto found = files.find(path);
    return found == files.end() ? std::nullopt : std::optional(found->second);
  };
  around.mounts = parse_mounts(mounts);
  return around;
}

inline const char* const kDrive =
    "29 23 0:27 / /content rw,relatime - overlay overlay rw\n"
    "512 29 0:61 / /content/drive rw,nosuid,nodev,relatime - fuse.drive drive rw,user_id=0,group_id=0,allow_other\n";

}  // namespace holdfast::test
