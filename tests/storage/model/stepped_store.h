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
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/stores/store.h"
#include "image.h"

namespace holdfast::storage::model {

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
