// A file system in memory that loses unsynced data.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "disk_content.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "storage/observed_steps.h"

namespace holdfast::storage::crash {

/// The file-operations seam over a DiskContent. It also performs the protocols' steps, so that it knows during which
/// step a call is made. One thread.
class SimulatedDisk : public FileOperations, public ObservedSteps {
 public:
  explicit SimulatedDisk(DiskContent content) : content_(std::move(content)) {}

  // What this disk cannot do, so that each way to publish create-only is used.
  bool refuse_link = false;
  bool refuse_rename_exclusive = false;
  bool second_first = false;   // together() runs its second part first
  std::uint64_t capacity = 0;  // bytes, in blocks of 4 KiB per file; 0: unlimited

  // Hooks that observe or break the disk.
  std::function<void()> changed;                                // after each call that changed what a crash may leave
  std::function<bool(const std::string& sync)> ignore_sync;     // "step: target"; true: report success, do nothing
  std::function<std::vector<Step>(std::vector<Step>)> reorder;  // of a protocol, which may also lose steps
  std::function<void(std::string_view)> at_step;

  const DiskContent& content() const { return content_; }
  std::uint64_t used_bytes() const;
  std::size_t syncs() const { return syncs_; }
  /// The number of serial syncs: of two parts that ran together, the longer one counts.
  std::size_t sync_rounds() const { return sync_rounds_; }
  std::size_t open_descriptors() const { return descriptors_.size(); }

  int open(const Path& path, int flags, int mode) override;
  int close(int fd) override;
  std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) override;
  std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override;
  int allocate(int fd, std::uint64_t bytes) override;
  int truncate(int fd, std::uint64_t bytes) override;
  int set_direct(int fd, bool direct) override;
  int sync(int fd) override;
  int make_directory(const Path& path) override;
  int link(const Path& from, const Path& to) override;
  int rename_exclusive(const Path& from, const Path& to) override;
  int unlink(const Path& path) override;
  int list(const Path& folder, std::vector<std::string>& names) override;
  int status(const Path& path, FileInfo& info) override;
  int mount_info(const Path& path, MountInfo& info) override;
  int status_of(int fd, FileInfo& info) override;
  int lock(int fd) override;

  void reached(std::string_view step) override;
  Status perform(std::vector<Step> steps) override;
  void together(const std::function<void()>& first, const std::function<void()>& second) override;

  /// Makes a sync of this descriptor fail: the pending bytes of the file are lost permanently.
  void fail_sync(int fd);

 private:
  struct Descriptor {
    InodeId inode = 0;
    int flags = 0;
    bool direct = false;
    Path path;
  };

  Descriptor* find_descriptor(int fd);
  std::optional<InodeId> parent_of(const Path& path) const;
  void set_name(InodeId directory, const std::string& name, std::optional<InodeId> value);
  void set_bytes(InodeId inode, std::string bytes);
  bool fits(InodeId inode, std::uint64_t bytes) const;
  std::string sync_name(const Descriptor& descriptor) const;
  void notify() const;

  DiskContent content_;
  std::map<int, Descriptor> descriptors_;
  std::map<InodeId, int> locks_;
  int next_descriptor_ = 100;
  std::string step_;
  std::size_t syncs_ = 0;
  std::size_t sync_rounds_ = 0;
};

}  // namespace holdfast::storage::crash
