// hints/verified.json: which versions `holdfast verify` has read completely, and with what result. It is a hint: it may
// be missing or deleted, and an entry counts only for the exact manifest that was verified.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "inspect/run_folder.h"

namespace holdfast::tools {

struct Verified {
  storage::Digest manifest;  // of the manifest's bytes
  bool ok = false;
  std::string time;  // RFC 3339, UTC
};

using VerifiedHint = std::map<storage::Uid, Verified>;

/// Empty if there is none that can be read.
VerifiedHint read_verified(const RunFolder& run);
/// Adds results and removes those of versions that no longer exist. A location that is not writable is an expected
/// outcome.
storage::Status add_verified(const RunFolder& run, const VerifiedHint& results);

/// The entry for this version, if it belongs to this manifest.
std::optional<Verified> verified(const VerifiedHint& hint, const storage::Uid& uid, const storage::Digest& manifest);

}  // namespace holdfast::tools
