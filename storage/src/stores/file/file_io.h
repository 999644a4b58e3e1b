// Complete transfers over the file-operations seam, and messages for errno values. Private to the file driver.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage {

/// One sentence for `error` (an errno) that names the path and the remedy. `verb`: "write", "read", "create", ….
Status status_from_errno(int error, const std::string& verb, const Path& path);
/// status_from_errno() for a full disk, with the bytes that were needed and that are free.
Status no_space(FileOperations& files, const Path& path, std::uint64_t needed);

/// Repeats a call while it is interrupted, because an interrupted call had no effect. The number of attempts is
/// limited, because endless interruptions are a fault.
template <class Call>
auto uninterrupted(Call&& call) {
  constexpr int kPatience = 100;
  auto result = call();
  for (int i = 0; result == -EINTR && i < kPatience; ++i) result = call();
  return result;
}

/// Transfers all bytes or returns an error; handles interruptions and short transfers. `incomplete` if the file ends.
Status write_fully(FileOperations& files, int fd, std::span<const std::byte> from, std::uint64_t offset,
                   const Path& path);
Status read_fully(FileOperations& files, int fd, std::span<std::byte> into, std::uint64_t offset, const Path& path);

/// FileOperations::list() into `names`, which holds nothing else afterwards.
int list_names(FileOperations& files, const Path& folder, std::vector<std::string>& names);

/// Makes a folder's names durable. `unsupported` if this file system cannot sync a folder.
Status sync_directory(FileOperations& files, const Path& folder);

}  // namespace holdfast::storage
