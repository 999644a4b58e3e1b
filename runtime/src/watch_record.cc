#include "watch_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast {
namespace {

using State = WatchRecord::State;

constexpr const char* kNames[] = {"running", "inside", "failed", "closed"};

// Two heartbeats: what is seen once may be one rank's news against another's old record.
constexpr std::chrono::milliseconds kSettled{600};

std::string name_of(int rank, const WatchRecord& record) {
  return fmt::format("rank {} (pid {} on {})", rank, record.pid, record.host);
}

// "in barrier at train.cc:41" or "after barrier at train.cc:41".
std::string whereabouts(const WatchRecord& record) {
  if (record.operation.empty()) return "before its first operation";
  return fmt::format("{} {} at {}", record.state == State::inside ? "in" : "after", record.operation, record.site);
}

std::string seen_from(int self, const std::vector<Peer>& peers) {
  return fmt::format("rank {} was {}", self, whereabouts(peers[static_cast<std::size_t>(self)].record));
}

nlohmann::json to_json(const StepOrder& order) { return {order.stop, order.save}; }

StepOrder order_of(const nlohmann::json& record, const char* name) {
  const auto texts = record.value(name, std::vector<std::string>());
  return texts.size() == 2 ? StepOrder{texts[0], texts[1]} : StepOrder();
}

}  // namespace

std::string encode(const WatchRecord& record) {
  return nlohmann::json({{"beat", record.beat},
                         {"state", kNames[static_cast<int>(record.state)]},
                         {"sequence", record.sequence},
                         {"operation", record.operation},
                         {"site", record.site},
                         {"text", record.text},
                         {"origin", record.origin},
                         {"host", record.host},
                         {"pid", record.pid},
                         {"place", record.place},
                         {"step", record.step},
                         {"wishes", record.wishes},
                         {"wish", to_json(record.wish)},
                         {"until", record.grant.until},
                         {"at", record.grant.at},
                         {"order", to_json(record.grant.order)}})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<WatchRecord> decode_record(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  WatchRecord record;
  for (int i = 0; i < 4; ++i) {
    if (json.value("state", "") == kNames[i]) record.state = static_cast<State>(i);
  }
  record.beat = json.value("beat", std::uint64_t{0});
  record.sequence = json.value("sequence", std::uint64_t{0});
  record.operation = json.value("operation", "");
  record.site = json.value("site", "");
  record.text = json.value("text", "");
  record.origin = json.value("origin", -1);
  record.host = json.value("host", "");
  record.pid = json.value("pid", std::int64_t{0});
  record.place = json.value("place", "");
  record.step = json.value("step", std::uint64_t{0});
  record.wishes = json.value("wishes", std::uint64_t{0});
  record.wish = order_of(json, "wish");
  record.grant = {json.value("until", std::uint64_t{0}), json.value("at", std::uint64_t{0}), order_of(json, "order")};
  return record;
}

std::optional<Fault> judge(int self, const std::vector<Peer>& peers) {
  const WatchRecord& own = peers[static_cast<std::size_t>(self)].record;
  const auto others = [&](auto&& fact) -> std::optional<Fault> {
    for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
      if (rank == self) continue;
      if (auto text = fact(rank, peers[static_cast<std::size_t>(rank)])) return Fault{rank, std::move(*text)};
    }
    return std::nullopt;
  };
  using Text = std::optional<std::string>;

  // A rank that failed by itself comes before those that failed because of it: all say the same then.
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (peer.record.state != State::failed || peer.record.origin != rank) return {};
        return peer.record.text;
      })) {
    return fault;
  }
  for (const Peer& peer : peers) {
    if (peer.record.state == State::failed) return Fault{peer.record.origin, peer.record.text};
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (!peer.unreachable) return {};
        return fmt::format("{} is gone: its connection closed when it was {}; {}", name_of(rank, peer.record),
                           whereabouts(peer.record), seen_from(self, peers));
      })) {
    return fault;
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (!peer.ended || peer.record.state == State::closed) return {};
        return fmt::format("{} is gone: its process ended; a moment before it was {}; {}", name_of(rank, peer.record),
                           whereabouts(peer.record), seen_from(self, peers));
      })) {
    return fault;
  }
  if (auto fault = others([&](int rank, const Peer& peer) -> Text {
        if (peer.silent < kSilence || peer.record.state == State::closed) return {};
        return fmt::format("{} has not been heard of for {:.0f} s: it was killed, or stands still; it was {}; {}",
                           name_of(rank, peer.record), static_cast<double>(peer.silent.count()) / 1000,
                           whereabouts(peer.record), seen_from(self, peers));
      })) {
    return fault;
  }
  if (own.state != State::inside) return std::nullopt;
  return others([&](int rank, const Peer& peer) -> Text {
    if (peer.record.state != State::inside || peer.record.sequence != own.sequence) return {};
    if (peer.record.operation == own.operation) return {};
    if (std::min(peer.unchanged, peers[static_cast<std::size_t>(self)].unchanged) < kSettled) return {};
    // The same words on both sides, whoever says them.
    const bool lower = self < rank;
    const auto& first = lower ? own : peer.record;
    const auto& second = lower ? peer.record : own;
    return fmt::format(
        "the ranks diverge at operation {}: rank {} waits in {} at {}, rank {} in {} at {}; every rank "
        "must call the same operations in the same order",
        own.sequence, lower ? self : rank, first.operation, first.site, lower ? rank : self, second.operation,
        second.site);
  });
}

std::string waiting_for(int self, const std::vector<Peer>& peers) {
  const WatchRecord& own = peers[static_cast<std::size_t>(self)].record;
  if (own.state != State::inside) return {};
  std::string text;
  for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
    const WatchRecord& record = peers[static_cast<std::size_t>(rank)].record;
    if (rank == self || record.sequence >= own.sequence) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format("rank {} (now {})", rank, whereabouts(record));
  }
  return text;
}

}  // namespace holdfast
