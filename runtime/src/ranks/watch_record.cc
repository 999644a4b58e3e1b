#include "ranks/watch_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast {
namespace {

using State = WatchRecord::State;

constexpr const char* kNames[] = {"running", "inside", "failed", "closed"};

// Two heartbeats: a single look may compare one rank's new record with another's old one.
constexpr std::chrono::milliseconds kSettled{600};

std::string name_of(int rank, const WatchRecord& record) {
  return fmt::format("rank {} (pid {} on {})", rank, record.pid, record.host);
}

// "in barrier at train.cc:41" or "after barrier at train.cc:41"; "last in" for a failed rank, because it is unknown
// which of the two applies.
std::string whereabouts(const WatchRecord& record) {
  if (record.operation.empty()) return "before its first operation";
  const char* const where = record.state == State::inside ? "in" : record.state == State::failed ? "last in" : "after";
  return fmt::format("{} {} at {}", where, record.operation, record.site);
}

std::string seen_from(int self, const std::vector<Peer>& peers) {
  return fmt::format("rank {} was {}", self, whereabouts(peers[static_cast<std::size_t>(self)].record));
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
  const auto waits = [](const Peer& peer) { return peer.record.state == State::inside && peer.unchanged >= kSettled; };
  const auto current = [](const Peer& peer) { return Call{peer.record.operation, peer.record.site}; };
  const bool both_wait = waits(first) && waits(second) && first.record.sequence == second.record.sequence;
  if (both_wait && first.record.operation != second.record.operation) {
    return DifferingCalls{first.record.sequence, current(first), current(second), true, true};
  }
  for (const Peer* waiting : {&first, &second}) {
    const Peer& other = waiting == &first ? second : first;
    const std::uint64_t number = waiting->record.sequence;
    if (!waits(*waiting) || number != waiting->record.entered) continue;
    const Call* const called = other.record.call(number);
    if (called == nullptr || called->operation == waiting->record.operation) continue;
    return waiting == &first ? DifferingCalls{number, current(first), *called, true, false}
                             : DifferingCalls{number, *called, current(second), false, true};
  }
  return std::nullopt;
}

nlohmann::json to_json(const StepOrder& order) { return {order.stop, order.save}; }

StepOrder order_of(const nlohmann::json& record, const char* name) {
  const auto texts = record.value(name, std::vector<std::string>());
  return texts.size() == 2 ? StepOrder{texts[0], texts[1]} : StepOrder();
}

// Loops repeat the same few operations, so each is written once.
nlohmann::json to_json(const std::vector<Call>& recent) {
  nlohmann::json calls = nlohmann::json::array(), order = nlohmann::json::array();
  for (const Call& call : recent) {
    const nlohmann::json one = {call.operation, call.site};
    const auto found = std::find(calls.begin(), calls.end(), one);
    order.push_back(found - calls.begin());
    if (found == calls.end()) calls.push_back(one);
  }
  return {calls, order};
}

std::vector<Call> calls_of(const nlohmann::json& record) {
  std::vector<Call> recent;
  const auto both = record.value("recent", nlohmann::json());
  if (!both.is_array() || both.size() != 2) return recent;
  const auto calls = both[0].get<std::vector<std::vector<std::string>>>();
  for (const std::size_t one : both[1].get<std::vector<std::size_t>>()) {
    recent.push_back({calls.at(one).at(0), calls.at(one).at(1)});
  }
  return recent;
}

}  // namespace

void WatchRecord::enter(const Call& call) {
  operation = call.operation;
  site = call.site;
  sequence = ++entered;
  if (recent.size() == kRecent) recent.erase(recent.begin());
  recent.push_back(call);
}

const Call* WatchRecord::call(std::uint64_t number) const {
  if (number > entered || number + recent.size() <= entered) return nullptr;
  return &recent[recent.size() - 1 - (entered - number)];
}

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
                         {"order", to_json(record.grant.order)},
                         {"recent", to_json(record.recent)},
                         {"entered", record.entered}})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<WatchRecord> decode_record(const std::string& text) try {
  const auto json = nlohmann::json::parse(text);
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
  record.recent = calls_of(json);
  record.entered = json.value("entered", std::uint64_t{0});
  return record;
} catch (const std::exception&) {  // for example another type where this build has a number
  return std::nullopt;
}

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
        if (peer.record.state != State::failed || peer.record.origin != rank) return {};
        return fmt::format("{}; it was {}; {}", peer.record.text, whereabouts(peer.record), seen_from(self, peers));
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
        if (peer.silent < silence || peer.record.state == State::closed) return {};
        return fmt::format(
            "{} has not been heard of for {:.0f} s (--holdfast.silence allows less): it was killed, or stands still; "
            "it was {}; {}",
            name_of(rank, peer.record), static_cast<double>(peer.silent.count()) / 1000, whereabouts(peer.record),
            seen_from(self, peers));
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
  const WatchRecord& own = peers[static_cast<std::size_t>(self)].record;
  if (own.state != State::inside) return {};
  std::string text;
  for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
    const WatchRecord& record = peers[static_cast<std::size_t>(rank)].record;
    if (rank < self && record.state == State::inside && record.sequence == own.sequence) return {};
    if (rank == self || record.sequence >= own.sequence) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format("rank {} (now {})", rank, whereabouts(record));
  }
  return text;
}

}  // namespace holdfast
