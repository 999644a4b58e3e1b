// A file system in memory that loses unsynced data: it knows the visible state and also what a loss of power would
// leave.
//
// Model. A file's bytes are safe after the file is synced, a directory's names after the directory is synced.
// Everything else is pending. After a crash each pending file has kept its bytes, lost them, or is torn: it has its
// length, but its bytes end early in zeros. Each pending name has, independently of all others, any value it had since
// its directory's last sync. Real file systems allow a part of these images; the protocols must survive all of them.
// Folders of hints, on which nothing may depend, keep or lose all pending changes at once.
// A failed sync is final, as on Linux: the pages count as clean, so a later sync of the same bytes saves nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "storage/observed_steps.h"

namespace holdfast::storage::crash {

using InodeId = std::size_t;
using Bytes = std::shared_ptr<const std::string>;

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

enum class Visit { skip, look, stop };

/// Calls `wanted` for each distinct image that a loss of power now may leave, with the image's digest (over paths and
/// bytes), and calls `look` for those that it wants to see. An image has no pending part.
void for_each_image(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
                    const std::function<void(const DiskContent&)>& look);

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
