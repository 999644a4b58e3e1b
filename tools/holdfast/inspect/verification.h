// The verification of one version of a run: every byte against its digest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/storage/readers/version_reader.h"
#include "inspect/run_folder.h"

namespace holdfast::tools {

struct Verification {
  storage::Uid uid;
  std::string title;
  std::uint64_t bytes = 0;
  std::size_t tensors = 0;
  std::vector<storage::Finding> findings;
  storage::Status unreadable;  // ok, or why it could not be checked
  bool removed = false;        // by a living session, during the verification
  storage::Digest manifest;    // of the manifest that was verified
};

/// Whether a status describes the version's bytes and not an error in reaching them.
bool is_damage(storage::StatusCode code);

/// Reads all bytes of the version, with a progress bar, and records nothing.
Verification verify(const RunFolder& run, const storage::Uid& uid);

}  // namespace holdfast::tools
