// The file-operations seam: every system call that matters to a commit goes through this interface, so that a test
// can lose unsynced bytes and directory entries, fail call N with any errno, shorten writes, or stop the world at any
// call, while the code that runs is the product's own.
//
// Convention: like the kernel, a call returns a value >= 0, or -errno. Nothing here retries, translates or logs.
// Threads: different descriptors may be used from different threads.
#pragma once

#include <boost/filesystem/path.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::storage {

using Path = boost::filesystem::path;

struct FileInfo {
  bool is_directory = false;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;  // of the clock that wrote it, which may be another machine's: for display only
};

/// What a file system can be trusted with, as far as its type tells.
struct MountInfo {
  std::string type;             // "ext4", "fuse", "tmpfs", "nfs", …, or the magic number in hex
  bool sync_is_durable = true;  // false where fsync proves nothing (tmpfs, FUSE)
  std::uint64_t free_bytes = 0;
};

class FileOperations {
 public:
  virtual ~FileOperations() = default;

  /// A new descriptor. Flags and mode as open(2); O_CLOEXEC is always added. The umask alone decides who may write: a
  /// group that shares a folder sets it to 002.
  virtual int open(const Path& path, int flags, int mode = 0666) = 0;
  virtual int close(int fd) = 0;
  /// May transfer less than asked, as the kernel may.
  virtual std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) = 0;
  virtual std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) = 0;
  /// Reserves space so that a full disk shows before the first byte is written. -EOPNOTSUPP where unsupported.
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
  /// Of an open file, whatever its name leads to by now.
  virtual int status_of(int fd, FileInfo& info) = 0;
  virtual int mount_info(const Path& path, MountInfo& info) = 0;
  /// A non-blocking exclusive lock of the whole file that belongs to the open file description (fcntl F_OFD_SETLK) and
  /// so ends with the process. -EAGAIN while somebody else holds it.
  virtual int lock(int fd) = 0;
  /// Gives the lock up also where a child process has the open file description too; close() does not.
  virtual int unlock(int /*fd*/) { return 0; }

  /// Runs both, possibly at the same time; returns when both are done.
  virtual void together(const std::function<void()>& first, const std::function<void()>& second) = 0;
  /// A protocol is about to perform this step ("S5 publish the manifest"). Nothing by default: tests count, kill or
  /// freeze here.
  virtual void reached(std::string_view /*step*/) {}
  /// Whether to perform this step's `sync` calls and steps in the order written: always yes in the product. Tests
  /// answer otherwise to prove that each step and its place are needed.
  virtual std::vector<std::size_t> order(const std::vector<std::string_view>& steps);
};

/// The operating system's own calls. One instance, never destroyed; any thread.
FileOperations& system_files();

}  // namespace holdfast::storage
