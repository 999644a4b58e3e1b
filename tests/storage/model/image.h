// The content of a virtual store, with a fingerprint by which a search recognizes equal states.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/run/history.h"

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

/// Whether this names an entry that is never removed: an open entry or a note.
bool is_permanent_entry(const std::string& name);

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

}  // namespace holdfast::storage::model
