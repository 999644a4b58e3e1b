// Other ranks as a rank sees them by their heartbeats.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "ranks/fault_judgement.h"
#include "ranks/heartbeat.h"

namespace peers {

using holdfast::Heartbeat;
using holdfast::Peer;
using std::chrono::milliseconds;
using State = Heartbeat::State;

inline Peer peer(State state, std::uint64_t sequence, const std::string& operation,
                 milliseconds silent = milliseconds(100), milliseconds unchanged = milliseconds(5000)) {
  Peer one;
  one.heartbeat.state = state;
  one.heartbeat.sequence = sequence;
  one.heartbeat.operation = operation;
  one.heartbeat.site = operation + ".cc:1";
  one.heartbeat.host = "host";
  one.heartbeat.pid = 7;
  one.silent = silent;
  one.unchanged = unchanged;
  return one;
}

inline Peer failed(int origin, const std::string& text) {
  Peer one = peer(State::failed, 4, "step");
  one.heartbeat.origin = origin;
  one.heartbeat.text = text;
  return one;
}

}  // namespace peers
