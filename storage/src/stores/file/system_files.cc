#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/filesystem/directory.hpp>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <cstdio>

#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage {
namespace {

template <class T>
std::int64_t or_errno(T value) {
  return value < 0 ? -errno : static_cast<std::int64_t>(value);
}

// statfs(2), "f_type".
struct MountType {
  std::uint64_t magic;
  const char* name;
  bool sync_is_durable;
};
constexpr MountType kMountTypes[] = {
    {0xEF53, "ext4", true},       {0x58465342, "xfs", true},     {0x9123683E, "btrfs", true},
    {0x2FC12FC1, "zfs", true},    {0x794C7630, "overlay", true}, {0x6969, "nfs", true},
    {0xF2F52010, "f2fs", true},   {0x01021994, "tmpfs", false},  {0x858458F6, "ramfs", false},
    {0x65735546, "fuse", false},  {0x01021997, "9p", false},     {0xFF534D42, "cifs", false},
    {0xFE534D42, "smb2", false},  {0x4D44, "vfat", true},        {0x2011BAB0, "exfat", true},
    {0x0BD00BD0, "lustre", true},
};

class SystemFiles final : public FileOperations {
 public:
  int open(const Path& path, int flags, int mode) override {
    return static_cast<int>(or_errno(::open(path.c_str(), flags | O_CLOEXEC, mode)));
  }
  int close(int fd) override { return static_cast<int>(or_errno(::close(fd))); }
  std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) override {
    return or_errno(::pread(fd, into, bytes, static_cast<off_t>(offset)));
  }
  std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override {
    return or_errno(::pwrite(fd, from, bytes, static_cast<off_t>(offset)));
  }
  int allocate(int fd, std::uint64_t bytes) override {
    return static_cast<int>(or_errno(::fallocate(fd, 0, 0, static_cast<off_t>(bytes))));
  }
  int truncate(int fd, std::uint64_t bytes) override {
    return static_cast<int>(or_errno(::ftruncate(fd, static_cast<off_t>(bytes))));
  }
  int set_direct(int fd, bool direct) override {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    return static_cast<int>(or_errno(::fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT)));
  }
  int sync(int fd) override { return static_cast<int>(or_errno(::fsync(fd))); }

  int make_directory(const Path& path) override { return static_cast<int>(or_errno(::mkdir(path.c_str(), 0777))); }
  int link(const Path& from, const Path& to) override {
    return static_cast<int>(or_errno(::link(from.c_str(), to.c_str())));
  }
  int rename_exclusive(const Path& from, const Path& to) override {
    // By number: glibc has renameat2 since 2.28 only under _GNU_SOURCE, musl not at all.
    return static_cast<int>(
        or_errno(::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE)));
  }
  int unlink(const Path& path) override { return static_cast<int>(or_errno(::unlink(path.c_str()))); }

  int list(const Path& folder, std::vector<std::string>& names) override {
    boost::system::error_code error;
    boost::filesystem::directory_iterator entry(folder, error);
    while (!error && entry != boost::filesystem::directory_iterator()) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    return error ? -error.value() : 0;
  }
  int status(const Path& path, FileInfo& info) override {
    struct stat found {};
    return ::stat(path.c_str(), &found) < 0 ? -errno : take(found, info);
  }
  int status_of(int fd, FileInfo& info) override {
    struct stat found {};
    return ::fstat(fd, &found) < 0 ? -errno : take(found, info);
  }
  int mount_info(const Path& path, MountInfo& info) override {
    struct statfs found {};
    if (::statfs(path.c_str(), &found) < 0) return -errno;
    const auto magic = static_cast<std::uint64_t>(found.f_type) & 0xFFFFFFFFU;
    info.free_bytes = static_cast<std::uint64_t>(found.f_bavail) * static_cast<std::uint64_t>(found.f_bsize);
    char hex[32];
    std::snprintf(hex, sizeof hex, "0x%llx", static_cast<unsigned long long>(magic));
    info.type = hex;
    info.sync_is_durable = false;  // for an unknown file system
    for (const MountType& known : kMountTypes) {
      if (known.magic != magic) continue;
      info.type = known.name;
      info.sync_is_durable = known.sync_is_durable;
      info.creates_and_removes_only = info.type == "fuse";
    }
    return 0;
  }
  int lock(int fd) override {
    const int result = set_lock(fd, F_WRLCK);
    return result == -EACCES ? -EAGAIN : result;  // fcntl(2) allows either
  }
  int unlock(int fd) override { return set_lock(fd, F_UNLCK); }

 private:
  static int take(const struct stat& found, FileInfo& info) {
    info.is_directory = S_ISDIR(found.st_mode);
    info.bytes = static_cast<std::uint64_t>(found.st_size);
    info.inode = static_cast<std::uint64_t>(found.st_ino);
    info.modified_ns = std::int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec;
    return 0;
  }
  static int set_lock(int fd, short type) {
    struct flock whole {};
    whole.l_type = type;
    whole.l_whence = SEEK_SET;
    return static_cast<int>(or_errno(::fcntl(fd, F_OFD_SETLK, &whole)));
  }
};

}  // namespace

FileOperations& system_files() {
  static SystemFiles& instance = *new SystemFiles;
  return instance;
}

}  // namespace holdfast::storage
