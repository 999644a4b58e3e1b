// The system's file operations, for tests that change one of them.
#pragma once

#include "holdfast/storage/stores/file/file_operations.h"

class ForwardingFiles : public holdfast::storage::FileOperations {
 public:
  using Path = holdfast::storage::Path;

  explicit ForwardingFiles(FileOperations& base = holdfast::storage::system_files()) : base_(base) {}

  int open(const Path& path, int flags, int mode) override { return base_.open(path, flags, mode); }
  int close(int fd) override { return base_.close(fd); }
  std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) override {
    return base_.read(fd, into, bytes, offset);
  }
  std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override {
    return base_.write(fd, from, bytes, offset);
  }
  int allocate(int fd, std::uint64_t bytes) override { return base_.allocate(fd, bytes); }
  int truncate(int fd, std::uint64_t bytes) override { return base_.truncate(fd, bytes); }
  int set_direct(int fd, bool direct) override { return base_.set_direct(fd, direct); }
  int sync(int fd) override { return base_.sync(fd); }
  int make_directory(const Path& path) override { return base_.make_directory(path); }
  int link(const Path& from, const Path& to) override { return base_.link(from, to); }
  int rename_exclusive(const Path& from, const Path& to) override { return base_.rename_exclusive(from, to); }
  int unlink(const Path& path) override { return base_.unlink(path); }
  int list(const Path& folder, std::vector<std::string>& names) override { return base_.list(folder, names); }
  int status(const Path& path, holdfast::storage::FileInfo& info) override { return base_.status(path, info); }
  int mount_info(const Path& path, holdfast::storage::MountInfo& info) override { return base_.mount_info(path, info); }
  int status_of(int fd, holdfast::storage::FileInfo& info) override { return base_.status_of(fd, info); }
  int lock(int fd) override { return base_.lock(fd); }
  int unlock(int fd) override { return base_.unlock(fd); }

 private:
  FileOperations& base_;
};
