// A heartbeat: what a rank writes to the store several times a second, so that the others know that it lives and where
// it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ranks/step_horizon.h"

namespace holdfast {

/// An operation that a rank entered, and the line of the program that called it.
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

}  // namespace holdfast
