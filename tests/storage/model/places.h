// Two machines with homes of their own and one mirror, all virtual: sessions, each the product's own RunWriter and
// Mirror on two fibers, that open the run, save, copy, prune, are superseded and die.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "faulty_steps.h"
#include "fiber.h"
#include "holdfast/storage/run/run_writer.h"
#include "stepped_store.h"
#include "work.h"

namespace holdfast::storage::model {

/// What a session does, and with which luck.
struct SessionPlan {
  std::string session;
  std::size_t home = 0;  // which machine
  std::size_t saves = 3;
  std::size_t keep_last = 2;
  bool mirror_is_unreachable = false;  // while it opens the run
  bool uploads_after_death = false;    // what it had begun to copy arrives although its process is dead
};

struct PlacesTotals {
  std::uint64_t steps = 0;
  std::uint64_t deaths = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t mirrored = 0;
  std::uint64_t superseded = 0;
  std::uint64_t forks = 0;  // reported by a session that opened the run
};

class Places {
 public:
  explicit Places(std::size_t machines);
  ~Places();

  /// Starts a session; the one before on the same machine must be over.
  void start(const SessionPlan& plan);
  /// Fibers that can be resumed, by session and role: "2 writer", "2 copier".
  std::vector<std::string> able() const;
  /// What the fiber will do when it is resumed.
  std::string next(const std::string& fiber) const;
  void step(const std::string& fiber);
  /// The session's process dies.
  void kill(const std::string& session);
  bool is_over(const std::string& session) const;
  /// A home whose folder was copied by hand, in any order, and not to the end.
  void copy_half(std::size_t from, std::size_t to, std::mt19937& random);

  /// Sentences about promises that do not hold, with all processes dead from now on:
  ///
  ///   1. Nothing is overwritten, no number used twice, no open entry or note removed, in any place.
  ///   2. Each save that a home acknowledged is held by a version there that verifies.
  ///   3. Each save that a copier called mirrored is held by a version in the mirror that verifies.
  ///   4. A session that opens the run at any home, or on a new machine, with the mirror, can save, prune and copy, and
  ///      2. and 3. hold afterwards. It refuses only where versions are known to be elsewhere.
  ///   5. A session is told that it is superseded only if a later one exists. Nothing else fails.
  std::vector<std::string> broken_promises() const;
  PlacesTotals totals() const;

 private:
  struct Session;
  struct Save {
    std::size_t home = 0;
    std::uint32_t item = 0;
    Uid uid;
  };
  void write(Session& session);
  void copy(Session& session);
  bool has_later(const Session& session) const;
  bool may_refuse(std::size_t home, const std::shared_ptr<Image>& image) const;
  std::vector<std::string> check_open(std::size_t home, const std::shared_ptr<Image>& image) const;

  std::vector<std::shared_ptr<Image>> homes_;
  std::shared_ptr<Image> mirror_;
  std::map<std::string, std::unique_ptr<Session>> sessions_;
  std::vector<Save> acknowledged_;
  std::set<std::uint32_t> mirrored_;  // saves
  std::vector<std::string> wrongs_;
  std::optional<std::size_t> copied_;  // the home whose folder was copied by hand
  PlacesTotals totals_;
};

}  // namespace holdfast::storage::model
