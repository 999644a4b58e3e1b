#include "ranks/fault_judgement.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "holdfast/storage/text/units.h"

namespace holdfast {
namespace {

using State = Heartbeat::State;

// Two heartbeats: a single look may compare one rank's new heartbeat with another's old one.
constexpr std::chrono::milliseconds kSettled{600};

std::string name_of(int rank, const Heartbeat& heartbeat) {
  return fmt::format("rank {} (pid {} on {})", rank, heartbeat.pid, heartbeat.host);
}

// "in barrier at train.cc:41" or "after barrier at train.cc:41"; "last in" for a failed rank, because it is unknown
// which of the two applies.
std::string whereabouts(const Heartbeat& heartbeat) {
  if (heartbeat.operation.empty()) return "before its first operation";
  const char* const where = heartbeat.state == State::inside   ? "in"
                            : heartbeat.state == State::failed ? "last in"
                                                               : "after";
  return fmt::format("{} {} at {}", where, heartbeat.operation, heartbeat.site);
}

std::string seen_from(int self, const std::vector<Peer>& peers) {
  return fmt::format("rank {} was {}", self, whereabouts(peers[static_cast<std::size_t>(self)].heartbeat));
}

// A difference between two ranks' calls.
struct DifferingCalls {
  std::uint64_t number;
  Call first, second;
  bool first_waits, second_waits;
};

// Finds a rank that waits, and the other one's different call of the same number. If both wait, their current
// operations are compared too, because one may wait for rank 0's grant to begin a step. That wait is not an operation;
// it uses the next operation's number.
std::optional<DifferingCalls> differing_calls(const Peer& first, const Peer& second) {
  const auto waits = [](const Peer& peer) {
    return peer.heartbeat.state == State::inside && peer.unchanged >= kSettled;
  };
  const auto current = [](const Peer& peer) { return Call{peer.heartbeat.operation, peer.heartbeat.site}; };
  const bool both_wait = waits(first) && waits(second) && first.heartbeat.sequence == second.heartbeat.sequence;
  if (both_wait && first.heartbeat.operation != second.heartbeat.operation) {
    return DifferingCalls{first.heartbeat.sequence, current(first), current(second), true, true};
  }
  for (const Peer* waiting : {&first, &second}) {
    const Peer& other = waiting == &first ? second : first;
    const std::uint64_t number = waiting->heartbeat.sequence;
    if (!waits(*waiting) || number != waiting->heartbeat.entered) continue;
    const Call* const called = other.heartbeat.call(number);
    if (called == nullptr || called->operation == waiting->heartbeat.operation) continue;
    return waiting == &first ? DifferingCalls{number, current(first), *called, true, false}
                             : DifferingCalls{number, *called, current(second), false, true};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Fault> judge(int self, const std::vector<Peer>& peers, std::chrono::milliseconds silence) {
  const auto others = [&](auto&& fact) -> std::optional<Fault> {
    for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
      if (rank == self) continue;
      if (auto text = fact(rank, peers[static_cast<std::size_t>(rank)])) return Fault{rank, std::move(*text)};
    }
    return std::nullopt;
  };
  using Text = std::optional<std::string>;

  // A rank that failed by itself precedes those that failed because of it, so that all report the same cause.
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (peer.heartbeat.state != State::failed || peer.heartbeat.origin != rank) return {};
        return fmt::format("{}; it was {}; {}", peer.heartbeat.text, whereabouts(peer.heartbeat),
                           seen_from(self, peers));
      })) {
    return fault;
  }
  for (const Peer& peer : peers) {
    if (peer.heartbeat.state == State::failed) return Fault{peer.heartbeat.origin, peer.heartbeat.text};
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (!peer.unreachable) return {};
        return fmt::format("{} is gone: its connection closed when it was {}; {}", name_of(rank, peer.heartbeat),
                           whereabouts(peer.heartbeat), seen_from(self, peers));
      })) {
    return fault;
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (!peer.ended || peer.heartbeat.state == State::closed) return {};
        return fmt::format("{} is gone: its process ended; a moment before it was {}; {}",
                           name_of(rank, peer.heartbeat), whereabouts(peer.heartbeat), seen_from(self, peers));
      })) {
    return fault;
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (peer.silent < silence || peer.heartbeat.state == State::closed) return {};
        return fmt::format(
            "{} has sent no heartbeat for {} (more than --holdfast.silence): it was killed or is suspended; "
            "it was {}; {}",
            name_of(rank, peer.heartbeat),
            storage::format_duration(std::chrono::round<std::chrono::seconds>(peer.silent)),
            whereabouts(peer.heartbeat), seen_from(self, peers));
      })) {
    return fault;
  }
  for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
    if (rank == self) continue;
    // Both ranks report the same sentence.
    const int first = std::min(self, rank), second = std::max(self, rank);
    const auto calls = differing_calls(peers[static_cast<std::size_t>(first)], peers[static_cast<std::size_t>(second)]);
    if (!calls) continue;
    const auto told = [](int of, const Call& call, bool waits) {
      return fmt::format("rank {} {} {} at {}", of, waits ? "waits in" : "called", call.operation, call.site);
    };
    return Fault{rank,
                 fmt::format("the ranks diverge at operation {}: {}, {}; every rank must call the same operations "
                             "in the same order",
                             calls->number, told(first, calls->first, calls->first_waits),
                             told(second, calls->second, calls->second_waits))};
  }
  return std::nullopt;
}

std::string waiting_for(int self, const std::vector<Peer>& peers) {
  const Heartbeat& own = peers[static_cast<std::size_t>(self)].heartbeat;
  if (own.state != State::inside) return {};
  std::string text;
  for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
    const Heartbeat& heartbeat = peers[static_cast<std::size_t>(rank)].heartbeat;
    if (rank < self && heartbeat.state == State::inside && heartbeat.sequence == own.sequence) return {};
    if (rank == self || heartbeat.sequence >= own.sequence) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format("rank {} (now {})", rank, whereabouts(heartbeat));
  }
  return text;
}

}  // namespace holdfast
