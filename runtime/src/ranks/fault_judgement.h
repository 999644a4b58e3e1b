// The judgement over all ranks' heartbeats: whether all must stop, and why. A pure function of heartbeats and times.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "ranks/heartbeat.h"

namespace holdfast {

/// A rank as another one sees it, by the other one's clock.
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
