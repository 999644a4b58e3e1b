// The content of a simulated disk: the visible state and also what a loss of power would leave.
//
// Model. A file's bytes are safe after the file is synced, a directory's names after the directory is synced.
// Everything else is pending. After a crash each pending file has kept its bytes, lost them, or is torn: it has its
// length, but its bytes end early in zeros. Each pending name has, independently of all others, any value it had since
// its directory's last sync. Real file systems allow a part of these images; the protocols must survive all of them.
// Folders of hints, on which nothing may depend, keep or lose all pending changes at once.
// A failed sync is final, as on Linux: the pages count as clean, so a later sync of the same bytes saves nothing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage::crash {

using InodeId = std::size_t;
using Bytes = std::shared_ptr<const std::string>;

inline constexpr std::uint64_t kBlock = 4096;  // bytes

/// A file or a directory. A name's value is the inode it leads to, or nothing.
struct Inode {
  using Value = std::optional<InodeId>;
  bool is_directory = false;
  bool is_hints = false;

  Bytes bytes = std::make_shared<const std::string>();
  Bytes safe = bytes;          // what the last successful sync left on the disk
  bool sync_failed = false;    // permanent after one failure: these bytes will never be safe
  std::uint64_t reserved = 0;  // by allocate()

  std::map<std::string, InodeId> names;
  std::map<std::string, std::vector<Value>> pending;  // every value since the last sync, the safe one first
};

/// The whole content of a disk, with the pending part. A value; copies share bytes.
class DiskContent {
 public:
  /// A root directory and these folders in it, all durable.
  explicit DiskContent(const std::vector<Path>& folders = {});

  std::optional<InodeId> find(const Path& path) const;
  bool has_pending() const;

  std::vector<Inode> inodes;  // the root is inode 0
};

}  // namespace holdfast::storage::crash
