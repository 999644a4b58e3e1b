// hints/verified.json: which versions `holdfast verify` has read through, and with what result. A hint: it may be
// missing or deleted, and it counts only for the very manifest that was verified.
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

/// Empty where there is none that can be read.
VerifiedHint read_verified(const RunFolder& run);
/// Adds results, and forgets versions that are gone. A place that cannot be written to is an ordinary outcome.
storage::Status add_verified(const RunFolder& run, const VerifiedHint& results);

/// The entry for this version, if it is about this manifest.
std::optional<Verified> verified(const VerifiedHint& hint, const storage::Uid& uid, const storage::Digest& manifest);

}  // namespace holdfast::tools
