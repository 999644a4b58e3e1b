// What a mirror held when a session last copied to it, kept at home in hints/: for lists, which must not wait for a
// mirror. A hint may be missing or outdated; the next copy writes it again.
//
//   hints/1f3a9c0e.mirror: {"place": "/drive/runs/mnist", "versions": {"000042-7f3a9c1e": "process-safe"}}
//   The name is the beginning of the digest of the place.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/object_name.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

struct MirrorHint {
  std::string place;
  std::map<Uid, std::string> versions;  // with what the place guarantees for each
};

Status write_mirror_hint(Store& home, const MirrorHint& hint);
/// By place. Those that cannot be read are left out.
std::vector<MirrorHint> read_mirror_hints(const Store& home);

}  // namespace holdfast::storage
