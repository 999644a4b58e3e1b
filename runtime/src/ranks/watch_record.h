// What each rank tells the others about itself at every heartbeat, and the judgement over what they told: a pure
// function of records and times.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ranks/horizon.h"

namespace holdfast {

struct Call {
  std::string operation, site;
};

struct WatchRecord {
  enum class State {
    running,  // computes
    inside,   // waits in `operation`
    failed,   // `text` says why
    closed,   // agreed to the end: may leave
  };
  std::uint64_t beat = 0;  // grows with every heartbeat
  State state = State::running;
  std::uint64_t sequence = 0;  // of the operation it is in, or was in last
  std::string operation = {};
  std::string site = {};
  std::string text = {};
  int origin = -1;  // the rank whose fault made this one fail; its own where it failed by itself
  std::string host = {};
  std::int64_t pid = 0;
  std::string place = {};    // where that pid means this process: boot and pid namespace
  std::uint64_t step = 0;    // completed
  std::uint64_t wishes = 0;  // how many times `wish` was set
  StepOrder wish = {};       // what this rank wants all to do
  Grant grant = {};          // rank 0's
  /// The operations that it entered last, at most kRecent, and how many it entered in all. On a GPU a rank leaves an
  /// operation long before the others come to it, so what it is in now is not all that counts.
  std::vector<Call> recent = {};
  std::uint64_t entered = 0;

  void enter(const Call& call);
  /// Its operation of that number; null where it has not come there, or long ago.
  const Call* call(std::uint64_t number) const;
};

/// A rank's program runs ahead of its GPU by a few steps, of a few operations each.
inline constexpr std::size_t kRecent = 64;

std::string encode(const WatchRecord& record);
/// Nothing for what is no record.
std::optional<WatchRecord> decode_record(const std::string& text);

/// A peer as its watcher sees it, by the watcher's own clock.
struct Peer {
  WatchRecord record;
  std::chrono::milliseconds silent{0};  // since its beat last grew
  // How long it has told the same state and operation, up to its last heartbeat: what a rank that is gone, or that the
  // network hides, told last says nothing about where it is.
  std::chrono::milliseconds unchanged{0};
  bool unreachable = false;  // its store's connection is closed
  bool ended = false;        // its process, on this host, is over, and this record is its last
};

struct Fault {
  int rank = -1;
  std::string text;
};

/// The first of the facts that stop all ranks, as rank `self` sees it; nothing while all is well, also where one is
/// merely slow. Facts, in this order: a rank failed; a rank's connection is closed or its process over; a rank was
/// silent for `silence`; a rank waits in an operation where another one waits in, or has called, a different one of the
/// same number.
std::optional<Fault> judge(int self, const std::vector<Peer>& peers, std::chrono::milliseconds silence);

/// Whom rank `self` waits for: those that are not in its operation yet. In one phrase, empty where nobody is missed, or
/// where a lower rank waits too and says it.
std::string waiting_for(int self, const std::vector<Peer>& peers);

}  // namespace holdfast
