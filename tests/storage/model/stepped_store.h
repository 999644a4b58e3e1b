// A virtual store in which every operation that can conflict with another writer's first yields to a scheduler. Between
// two such operations a writer runs alone, so the order in which the scheduler resumes the writers is the whole
// schedule.
//
// Operations that commute with every other one do not stop: writing a payload's bytes (they are not read before the
// manifest names them), making objects durable (a process that dies does not lose bytes), and reading an entry that is
// never removed (open entries and notes; the image checks this).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage::model {

/// Sums of digests: equal sets and sequences have equal values, and one more element costs one addition.
struct Fingerprint {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
  /// The order of added elements does not count.
  void add(std::string_view element);
  void take_away(std::string_view element);
  /// The order counts.
  void then(std::string_view element);
  void then(const Fingerprint& other);
};

struct FingerprintHash {
  std::size_t operator()(const Fingerprint& of) const { return of.low; }
};

/// The work of a version: one number for each save that it descends from, oldest first. A save appends its own number.
/// A number is lost if it is not in the work of the version that a run resumes from.
using Work = std::vector<std::uint32_t>;

/// The content of a store. Copies share the objects' bytes.
class Image {
 public:
  using Bytes = std::shared_ptr<const std::string>;

  bool create(const std::string& name, Bytes bytes);
  /// Sets the bytes of an object that was created empty, if it still exists.
  void complete(const std::string& name, Bytes bytes);
  void remove(const std::string& name);
  Bytes find(const std::string& name) const;
  std::vector<std::string> list(const std::string& folder) const;

  void stage(const std::string& name);
  bool unstage(const std::string& name);
  const std::set<std::string>& staged() const { return staged_; }

  const std::vector<OpenEntry>& opens() const { return opens_; }
  bool is_dropped(const Uid& version) const { return dropped_.contains(version); }
  /// The work in a version's manifest, even if the manifest has been removed since.
  Work work_of(const Uid& version) const;
  /// Events that must not happen in any schedule, as sentences.
  const std::vector<std::string>& wrongs() const { return wrongs_; }
  /// The fingerprint of names, bytes and staged objects.
  const Fingerprint& fingerprint() const { return fingerprint_; }

 private:
  std::map<std::string, Bytes> objects_;
  std::set<std::string> staged_;
  std::map<std::string, Bytes> ever_;  // as created; payload still empty
  std::vector<OpenEntry> opens_;
  std::set<Uid> dropped_;  // versions named in a drop note
  std::vector<std::string> wrongs_;
  Fingerprint fingerprint_;
};

/// Conflicting operations of other writers that only some programs contain.
enum class Meeting {
  removes_staged,    // what others have staged
  removes_versions,  // or payload
};

/// Thrown out of a store call: the writer's process is dead.
struct WriterDied {};

/// One writer's view of an image.
class SteppedStore final : public Store {
 public:
  struct Hooks {
    /// Yields to the scheduler; throws WriterDied if the writer must not continue. Empty: never stops.
    std::function<void(std::string_view what)> before;
    /// Whether another writer may still do something that does not commute with this one. Empty: yes.
    std::function<bool(Meeting)> may_meet;
  };
  SteppedStore(std::shared_ptr<Image> image, Hooks hooks);

  /// Everything that this writer has learnt from the store, in order.
  const Fingerprint& observed() const { return observed_; }
  /// Replaces observed() by the part that the writer still remembers after a call.
  void remember_only(const Fingerprint& what) { observed_ = what; }
  /// The objects this writer has named, by uid.
  const std::set<std::string>& own() const { return own_; }
  /// The highest number any listing has shown this writer.
  std::uint64_t highest_seen() const { return highest_seen_; }
  const std::vector<std::string>& wrongs() const { return wrongs_; }
  /// From now on every call fails and changes nothing.
  void die() { dead_ = true; }

  Capabilities capabilities() const override;
  std::string location() const override { return "virtual:"; }
  Status prepare() override { return {}; }
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t expected_bytes) override;
  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override;
  Status sync_folder(const std::string&) override { return {}; }
  Result<std::vector<std::string>> list(const std::string& folder) const override;
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override;
  Status remove(const std::string& name) override;
  Status put(const std::string&, std::string_view) override { return {}; }
  Status append(const std::string&, std::string_view) override { return {}; }
  Result<std::size_t> remove_staged(const std::function<bool(std::string_view session)>& is_over) override;
  /// Always granted, because the writers are on different hosts, between which locks do not work.
  Result<std::unique_ptr<HostLock>> lock(std::string_view holder) override;

 private:
  friend class SteppedWriter;
  friend class SteppedStaged;
  void stop_before(std::string_view operation, std::string_view name) const;
  bool may_meet(Meeting what) const { return !hooks_.may_meet || hooks_.may_meet(what); }
  void check_alive() const;
  void learn(std::string_view operation, std::string_view name, std::string_view answer) const;
  void check_number(const std::string& name) const;
  Status publish(const std::string& name, const std::string& staged_name, Image::Bytes bytes);

  std::shared_ptr<Image> image_;
  Hooks hooks_;
  bool dead_ = false;
  mutable Fingerprint observed_;
  mutable std::uint64_t highest_seen_ = 0;
  mutable std::set<std::string> own_;
  mutable std::vector<std::string> wrongs_;
};

}  // namespace holdfast::storage::model
