#include "disk_content.h"

#include <algorithm>

namespace holdfast::storage::crash {

DiskContent::DiskContent(const std::vector<Path>& folders) {
  inodes.emplace_back().is_directory = true;
  for (const Path& folder : folders) {
    InodeId at = 0;
    for (const Path& part : folder.relative_path()) {
      const auto known = inodes[at].names.find(part.string());
      if (known != inodes[at].names.end()) {
        at = known->second;
        continue;
      }
      inodes.emplace_back().is_directory = true;
      at = inodes[at].names[part.string()] = inodes.size() - 1;
    }
  }
}

std::optional<InodeId> DiskContent::find(const Path& path) const {
  InodeId at = 0;
  for (const Path& part : path.relative_path()) {
    if (part == ".") continue;
    const auto found = inodes[at].names.find(part.string());
    if (found == inodes[at].names.end()) return std::nullopt;
    at = found->second;
  }
  return at;
}

bool DiskContent::has_pending() const {
  return std::any_of(inodes.begin(), inodes.end(),
                     [](const Inode& inode) { return inode.bytes != inode.safe || !inode.pending.empty(); });
}

}  // namespace holdfast::storage::crash
