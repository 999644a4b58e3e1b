// Tries a folder as a run would use it: it makes a run of its own there, writes entries and payload through the same
// store, reads them back, and removes everything. What is found is measured, never read off the mount's type.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::tools {

struct PlaceFacts {
  storage::Status outcome;  // why the probe ended early; what follows is then incomplete
  storage::Capabilities capabilities = {};
  bool refuses_second_create = false;
  bool lists_what_was_created = false;
  bool reads_back = false;                  // a range out of the middle, and the whole payload
  std::chrono::nanoseconds entry{0};        // median time to publish one durable entry
  std::uint64_t payload = 0;                // bytes written
  std::chrono::nanoseconds writing{0};      // of that payload, until it was durable
  std::chrono::nanoseconds reading{0};      // of that payload; the system may have kept it in memory
  std::chrono::nanoseconds clock_ahead{0};  // of the file system's clock before this machine's
  std::uint64_t free = 0;                   // bytes that this user may write, as the file system reports them
  std::uint64_t total = 0;
};

/// The folder need not exist; then it is made for the probe, and removed if it is empty afterwards. `payload` bytes are
/// written. Another process of this program tries the place, because a mount that hangs would block this one for good;
/// after `patience` the outcome is `unreadable`, and the other process is left to end by itself.
PlaceFacts probe_place(const storage::Path& folder, std::uint64_t payload, std::chrono::seconds patience);

}  // namespace holdfast::tools
