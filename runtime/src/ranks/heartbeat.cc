#include "ranks/heartbeat.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast {
namespace {

constexpr const char* kStates[] = {"running", "inside", "failed", "closed"};

nlohmann::json to_json(const StopRequest& request) { return {request.stop, request.save}; }

StopRequest request_of(const nlohmann::json& heartbeat, const char* name) {
  const auto texts = heartbeat.value(name, std::vector<std::string>());
  return texts.size() == 2 ? StopRequest{texts[0], texts[1]} : StopRequest();
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

std::vector<Call> calls_of(const nlohmann::json& heartbeat) {
  std::vector<Call> recent;
  const auto both = heartbeat.value("recent", nlohmann::json());
  if (!both.is_array() || both.size() != 2) return recent;
  const auto calls = both[0].get<std::vector<std::vector<std::string>>>();
  for (const std::size_t one : both[1].get<std::vector<std::size_t>>()) {
    recent.push_back({calls.at(one).at(0), calls.at(one).at(1)});
  }
  return recent;
}

}  // namespace

void Heartbeat::enter(const Call& call) {
  operation = call.operation;
  site = call.site;
  sequence = ++entered;
  if (recent.size() == kRecent) recent.erase(recent.begin());
  recent.push_back(call);
}

const Call* Heartbeat::call(std::uint64_t number) const {
  if (number > entered || number + recent.size() <= entered) return nullptr;
  return &recent[recent.size() - 1 - (entered - number)];
}

std::string encode(const Heartbeat& heartbeat) {
  return nlohmann::json({{"beat", heartbeat.beat},
                         {"state", kStates[static_cast<int>(heartbeat.state)]},
                         {"sequence", heartbeat.sequence},
                         {"operation", heartbeat.operation},
                         {"site", heartbeat.site},
                         {"text", heartbeat.text},
                         {"origin", heartbeat.origin},
                         {"host", heartbeat.host},
                         {"pid", heartbeat.pid},
                         {"place", heartbeat.place},
                         {"step", heartbeat.step},
                         {"wishes", heartbeat.wishes},
                         {"wish", to_json(heartbeat.wish)},
                         {"until", heartbeat.grant.until},
                         {"at", heartbeat.grant.at},
                         {"request", to_json(heartbeat.grant.request)},
                         {"recent", to_json(heartbeat.recent)},
                         {"entered", heartbeat.entered}})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<Heartbeat> decode_heartbeat(const std::string& text) try {
  const auto json = nlohmann::json::parse(text);
  if (!json.is_object()) return std::nullopt;
  Heartbeat heartbeat;
  for (int i = 0; i < 4; ++i) {
    if (json.value("state", "") == kStates[i]) heartbeat.state = static_cast<Heartbeat::State>(i);
  }
  heartbeat.beat = json.value("beat", std::uint64_t{0});
  heartbeat.sequence = json.value("sequence", std::uint64_t{0});
  heartbeat.operation = json.value("operation", "");
  heartbeat.site = json.value("site", "");
  heartbeat.text = json.value("text", "");
  heartbeat.origin = json.value("origin", -1);
  heartbeat.host = json.value("host", "");
  heartbeat.pid = json.value("pid", std::int64_t{0});
  heartbeat.place = json.value("place", "");
  heartbeat.step = json.value("step", std::uint64_t{0});
  heartbeat.wishes = json.value("wishes", std::uint64_t{0});
  heartbeat.wish = request_of(json, "wish");
  heartbeat.grant = {json.value("until", std::uint64_t{0}), json.value("at", std::uint64_t{0}),
                     request_of(json, "request")};
  heartbeat.recent = calls_of(json);
  heartbeat.entered = json.value("entered", std::uint64_t{0});
  return heartbeat;
} catch (const std::exception&) {  // for example another type where this build has a number
  return std::nullopt;
}

}  // namespace holdfast
