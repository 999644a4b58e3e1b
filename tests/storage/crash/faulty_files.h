// Wraps another disk and adds one fault: the call with a given index fails or transfers less, once or from then on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage::crash {

/// How long a fault lasts after its first occurrence.
enum class Lasting {
  once,
  this_call,  // every later call of the same function
  all_calls   // every later call
};

struct Fault {
  std::size_t at = 0;  // index of the call, counted from arm()
  int error = 0;       // errno; 0: a write or read transfers half of the requested bytes, down to nothing
  Lasting lasting = Lasting::once;
  bool done_anyway = false;  // the call takes effect before it fails, as if a reply is lost

  std::string text() const;
};

/// One thread.
class FaultyFiles : public FileOperations {
 public:
  explicit FaultyFiles(FileOperations& inner) : inner_(inner) {}

  void arm(const Fault& fault);
  void lift() { armed_ = false; }
  /// Calls since arm(), or since construction.
  std::size_t calls() const { return calls_; }
  /// The first call that failed: "sync /home/runs/alpha/data"; empty: the fault did not occur.
  const std::string& fired() const { return fired_; }
  bool is_transfer() const { return transfer_; }
  /// Whether there were more calls under one fault than any protocol needs: the caller retries forever.
  bool spun() const { return calls_ > kEndless; }
  /// A descriptor that was synced again after a failed sync; empty if there is none.
  const std::string& retried_sync() const { return retried_sync_; }
  /// Called when a sync fails for a reason other than an interruption.
  std::function<void(int fd)> sync_failed;

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

 private:
  static constexpr std::size_t kEndless = 20'000;

  /// Whether this call fails.
  bool strikes(const char* function, const Path& path, bool transfer = false);
  template <class Call>
  auto pass(const char* function, const Path& path, Call&& call) -> decltype(call());
  Path path_of(int fd) const;

  FileOperations& inner_;
  Fault fault_;
  bool armed_ = false;
  std::size_t calls_ = 0;
  std::string fired_;
  std::string fired_function_;
  bool transfer_ = false;
  std::map<int, Path> paths_;
  std::set<int> failed_syncs_;
  std::string retried_sync_;
};

}  // namespace holdfast::storage::crash
