#include "stores/file/file_io.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "holdfast/storage/text/units.h"

namespace holdfast::storage {

Status status_from_errno(int error, const std::string& verb, const Path& path) {
  const std::string what = "cannot " + verb + " " + path.string() + ": ";
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return {StatusCode::not_found, what + "no such file or folder"};
    case EEXIST:
      return {StatusCode::already_exists, what + "it exists already; objects are created once and never replaced"};
    case EACCES:
    case EPERM:
      if (verb == "open" || verb == "read" || verb == "list") {
        return {StatusCode::permission_denied, what + "permission denied; give this user access to it"};
      }
      return {StatusCode::permission_denied,
              what + "permission denied; give this user write access or choose another folder with --holdfast.dir"};
    case EROFS:
      return {StatusCode::read_only,
              what + "the file system is read-only; choose a writable folder with --holdfast.dir"};
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {StatusCode::no_space, what + std::strerror(error) +
                                        "; free space there or choose another folder with --holdfast.dir. Versions "
                                        "saved earlier are untouched"};
    case ENAMETOOLONG:
      return {StatusCode::name_too_long,
              what + "the path has " + std::to_string(path.size()) +
                  " characters, more than this file system allows; choose a shorter run name "
                  "or --holdfast.dir"};
    default:
      return {StatusCode::unreadable, what + std::strerror(error)};
  }
}

Status no_space(FileOperations& files, const Path& path, std::uint64_t needed) {
  MountInfo mount;
  std::string free;
  if (files.mount_info(path.parent_path(), mount) >= 0) free = ", " + format_bytes(mount.free_bytes) + " are free";
  return {StatusCode::no_space, "cannot write " + path.string() + ": the disk is full (" + format_bytes(needed) +
                                    " are needed" + free +
                                    "); free space there or choose another folder with --holdfast.dir. Versions saved "
                                    "earlier are untouched"};
}

Status write_fully(FileOperations& files, int fd, std::span<const std::byte> from, std::uint64_t offset,
                   const Path& path) {
  int idle = 0;
  while (!from.empty()) {
    const std::int64_t written = uninterrupted([&] { return files.write(fd, from.data(), from.size(), offset); });
    if (written < 0) return status_from_errno(static_cast<int>(-written), "write", path);
    // A file that repeatedly accepts no bytes and returns no error will not accept the rest either.
    if (written == 0 && ++idle > 100) return status_from_errno(EIO, "write", path);
    from = from.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

Status read_fully(FileOperations& files, int fd, std::span<std::byte> into, std::uint64_t offset, const Path& path) {
  while (!into.empty()) {
    const std::int64_t got = uninterrupted([&] { return files.read(fd, into.data(), into.size(), offset); });
    if (got < 0) return status_from_errno(static_cast<int>(-got), "read", path);
    if (got == 0) {
      return {StatusCode::incomplete, path.string() + " ends at byte " + std::to_string(offset) + ", " +
                                          std::to_string(into.size()) + " bytes before it should"};
    }
    into = into.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

int list_names(FileOperations& files, const Path& folder, std::vector<std::string>& names) {
  return uninterrupted([&] {
    names.clear();
    return files.list(folder, names);
  });
}

Status sync_directory(FileOperations& files, const Path& folder) {
  const int fd = uninterrupted([&] { return files.open(folder, O_RDONLY | O_DIRECTORY, 0); });
  if (fd < 0) return status_from_errno(-fd, "open the folder", folder);
  const int synced = uninterrupted([&] { return files.sync(fd); });
  files.close(fd);
  if (synced == -EINVAL || synced == -ENOTSUP || synced == -ENOSYS) {
    return {StatusCode::unsupported, "the file system of " + folder.string() + " cannot sync a folder"};
  }
  return synced < 0 ? status_from_errno(-synced, "sync the folder", folder) : Status();
}

}  // namespace holdfast::storage
