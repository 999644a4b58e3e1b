// The file-operations seam: every system call that matters to a commit goes through this interface. A test can so lose
// unsynced bytes and directory entries, fail call N with any errno, shorten writes, or stop all threads at any call,
// while it runs the production code.
//
// Convention: like the kernel, a call returns a value >= 0, or -errno. The calls do not retry, translate or log.
// Threads: different descriptors may be used from different threads.
#pragma once

#include <boost/filesystem/path.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::storage {

using Path = boost::filesystem::path;

struct FileInfo {
  bool is_directory = false;
  std::uint64_t bytes = 0;
  std::uint64_t inode = 0;
  std::int64_t modified_ns = 0;  // by the writer's clock, which may be another machine's: for display only
};

/// The type of a file system, and the guarantees that follow from it.
struct MountInfo {
  std::string type;             // "ext4", "fuse", "tmpfs", "nfs", …, or the magic number in hex
  bool sync_is_durable = true;  // false if fsync guarantees nothing (tmpfs, FUSE)
  /// FUSE, such as a mounted Google Drive: links, renames and locks fail, or are lost on the way to the server.
  bool creates_and_removes_only = false;
  std::uint64_t free_bytes = 0;
};

class FileOperations {
 public:
  virtual ~FileOperations() = default;

  /// A new descriptor. Flags and mode as open(2); O_CLOEXEC is always added. Only the umask restricts write access: a
  /// group that shares a folder sets it to 002.
  virtual int open(const Path& path, int flags, int mode = 0666) = 0;
  virtual int close(int fd) = 0;
  /// May transfer fewer bytes than requested, like the system call.
  virtual std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) = 0;
  virtual std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) = 0;
  /// Reserves space so that a full disk is an error before the first byte is written. -EOPNOTSUPP if unsupported.
  virtual int allocate(int fd, std::uint64_t bytes) = 0;
  virtual int truncate(int fd, std::uint64_t bytes) = 0;
  /// Switches O_DIRECT on an open descriptor.
  virtual int set_direct(int fd, bool direct) = 0;
  /// fsync(2) of a file or a directory.
  virtual int sync(int fd) = 0;

  virtual int make_directory(const Path& path) = 0;
  virtual int link(const Path& from, const Path& to) = 0;
  /// renameat2(2) with RENAME_NOREPLACE.
  virtual int rename_exclusive(const Path& from, const Path& to) = 0;
  virtual int unlink(const Path& path) = 0;
  /// Names (not paths) in a folder, without "." and "..", in no particular order.
  virtual int list(const Path& folder, std::vector<std::string>& names) = 0;
  virtual int status(const Path& path, FileInfo& info) = 0;
  /// The status of an open file, whatever its name refers to now.
  virtual int status_of(int fd, FileInfo& info) = 0;
  virtual int mount_info(const Path& path, MountInfo& info) = 0;
  /// A non-blocking exclusive lock of the whole file. It belongs to the open file description (fcntl F_OFD_SETLK) and
  /// so ends with the process. -EAGAIN while another open file description holds it.
  virtual int lock(int fd) = 0;
  /// Releases the lock even if a child process shares the open file description; close() does not.
  virtual int unlock(int /*fd*/) { return 0; }
};

/// The operating system's own calls. One instance, never destroyed; any thread.
FileOperations& system_files();

}  // namespace holdfast::storage
