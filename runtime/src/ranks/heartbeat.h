// The heartbeat that each rank sends at every heartbeat, and the judgement over these heartbeats: a pure function of
// heartbeats and times.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ranks/step_horizon.h"

namespace holdfast {

struct Call {
  std::string operation, site;
};

struct Heartbeat {
  enum class State {
    running,  // computes
    inside,   // waits in `operation`
    failed,   // `text` says why
    closed,   // agreed to end: may leave
  };
  std::uint64_t beat = 0;  // grows with every heartbeat
  State state = State::running;
  std::uint64_t sequence = 0;  // of the operation it is in, or was in last
  std::string operation = {};
  std::string site = {};
  std::string text = {};
  int origin = -1;  // the rank whose fault made this one fail; its own if it failed by itself
  std::string host = {};
  std::int64_t pid = 0;
  std::string place = {};    // where that pid is valid: boot id and pid namespace
  std::uint64_t step = 0;    // completed
  std::uint64_t wishes = 0;  // how many times `wish` was set
  StopRequest wish = {};     // this rank's request to all ranks
  Grant grant = {};          // rank 0's
  /// The operations that it entered last, at most kRecent, and how many it entered in all. On a GPU a rank may leave an
  /// operation long before the others enter it, so the current operation is not enough.
  std::vector<Call> recent = {};
  std::uint64_t entered = 0;

  void enter(const Call& call);
  /// Its operation of that number; null if it has not entered it yet, or entered it long ago.
  const Call* call(std::uint64_t number) const;
};

/// A rank's program runs ahead of its GPU by a few steps, of a few operations each.
inline constexpr std::size_t kRecent = 64;

std::string encode(const Heartbeat& heartbeat);
/// Nothing if `text` is not a heartbeat.
std::optional<Heartbeat> decode_heartbeat(const std::string& text);

/// A peer as its watcher sees it, by the watcher's own clock.
struct Peer {
  Heartbeat heartbeat;
  std::chrono::milliseconds silent{0};  // since its beat last grew
  // How long its state and operation were the same, up to its last heartbeat: the last heartbeat of a rank that is
  // gone, or cut off by the network, does not show where it is now.
  std::chrono::milliseconds unchanged{0};
  bool unreachable = false;  // the connection to the store, which this peer holds, is closed
  bool ended = false;        // its process, on this host, has ended, and this heartbeat is its last
};

struct Fault {
  int rank = -1;
  std::string text;
};

/// The first fact that stops all ranks, as rank `self` sees it; nothing without a fault, also if a rank is only slow.
/// Facts, in this order: a rank failed; a rank's connection is closed or its process has ended; a rank was silent for
/// `silence`; a rank waits in an operation, and another one waits in, or has called, a different one of the same
/// number.
std::optional<Fault> judge(int self, const std::vector<Peer>& peers, std::chrono::milliseconds silence);

/// The ranks that rank `self` waits for, because they are not in its operation yet, as a phrase. Empty if none is
/// missing, or if a lower rank waits too and reports it.
std::string waiting_for(int self, const std::vector<Peer>& peers);

}  // namespace holdfast
