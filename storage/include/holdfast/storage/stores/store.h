// A Store holds named objects below one run's root: journal entries, payload, metrics. The commit protocol
// (run_writer.h) is written against this interface and its capability flags only, never against a driver's name.
//
// Names are relative, use '/', and have exactly one folder: "journal/000042-7f3a9c1e.save.json". Objects in journal/
// and data/ are immutable: created once, never overwritten or renamed.
// Threads: all members may be called from any thread; one ObjectWriter or ObjectReader from one thread at a time,
// except ObjectReader::read, which any number of threads may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/status.h"

namespace holdfast::storage {

/// The largest object that Store::get() reads, so the largest manifest that may be written.
inline constexpr std::uint64_t kMaxObjectBytes = std::uint64_t{1} << 30;

/// What a driver promises. All flags are positive: a new driver that sets none is used in the most careful way.
struct Capabilities {
  /// Exactly one of two creates of one name succeeds. Else no run is opened for writing.
  bool create_only_enforced = false;
  /// A published object is seen whole or not at all, even after a crash. Else durable entries are read back.
  bool atomic_publish = false;
  /// Synced data survives a loss of power. Else versions are "process-safe", not "fsynced".
  bool durable_put = false;
  /// A listing shows every object whose create returned before it began. Else no run is opened for writing.
  bool list_after_create = false;
  /// Reading a range transfers about the range's bytes, not the whole object.
  bool ranged_read = false;
  /// lock() works between processes of one host. Else it is not called.
  bool host_lock = false;
};

/// Streams one new object. Unless finish() returned ok, the object is abandoned: a prefix of it may remain under its
/// name.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  /// A buffer to fill with the next bytes, at least 4 KiB and aligned to 4 KiB; commit it with advance(). Filling the
  /// driver's own buffer saves a copy.
  virtual std::span<std::byte> buffer() = 0;
  /// The first `bytes` of buffer() are the object's next bytes.
  virtual Status advance(std::size_t bytes) = 0;
  /// Makes all bytes durable (Store::sync_folder makes the name durable). After a failure the object is void: write
  /// again under a new name, never retry.
  virtual Status finish() = 0;
};

class ObjectReader {
 public:
  virtual ~ObjectReader() = default;
  virtual std::uint64_t bytes() const = 0;
  /// Fills `into` from `offset`; `incomplete` if the object ends earlier.
  virtual Status read(std::uint64_t offset, std::span<std::byte> into) const = 0;
};

/// A small object that does not have its name yet. Its bytes are as durable as the store makes them.
class StagedObject {
 public:
  virtual ~StagedObject() = default;
  /// Gives it its name, create-only: `already_exists` if the name is taken. Durable after Store::sync_folder.
  virtual Status publish() = 0;
};

/// The lock is held during this object's lifetime and ends with the process at the latest.
class HostLock {
 public:
  virtual ~HostLock() = default;
  /// The previous holder's text if that holder is dead and only a process that it had started kept the lock; else
  /// empty.
  virtual std::string left_by() const { return {}; }
};

class Store {
 public:
  virtual ~Store() = default;

  virtual Capabilities capabilities() const = 0;
  /// The store's location, for messages: a path or a URL.
  virtual std::string location() const = 0;

  /// Makes the missing folders of a run, durably, and probes the capabilities of the location. Call once before any
  /// other member that writes.
  virtual Status prepare() = 0;

  /// Create-only. `expected_bytes` reserves space, so that a full disk is an error before the first byte.
  virtual Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t expected_bytes) = 0;
  /// `durable` = false skips the sync, for entries that nothing depends on.
  virtual Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes,
                                                      bool durable = true) = 0;
  /// Makes the names in "journal" or "data" durable: those created and those removed.
  virtual Status sync_folder(const std::string& folder) = 0;

  /// The names ("journal/…") of a folder's objects, sorted, without staged ones. An absent folder is empty.
  virtual Result<std::vector<std::string>> list(const std::string& folder) const = 0;
  virtual Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const = 0;
  /// A whole small object. `corrupt` above `limit` bytes.
  Result<std::string> get(const std::string& name, std::uint64_t limit = kMaxObjectBytes) const;
  /// Ok also if the object does not exist.
  virtual Status remove(const std::string& name) = 0;

  /// Replaces a mutable object (hints/) or appends to one (metrics/, logs/). Not durable, never needed to resume.
  virtual Status put(const std::string& name, std::string_view bytes) = 0;
  virtual Status append(const std::string& name, std::string_view bytes) = 0;

  /// Removes staged objects that sessions left behind. `is_over(session)` tells whether the 8-digit session in a staged
  /// name will never publish it. Returns how many were removed.
  virtual Result<std::size_t> remove_staged(const std::function<bool(std::string_view session)>& is_over) = 0;

  /// `busy`, with the holder's text in the message, while another living process of this host holds the lock.
  virtual Result<std::unique_ptr<HostLock>> lock(std::string_view holder) = 0;
};

}  // namespace holdfast::storage
