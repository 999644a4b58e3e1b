#include "notices/preemption_notice.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/time.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::Status;
using storage::StatusCode;

Status another_form(const char* what, const std::string& body) {
  return {StatusCode::corrupt, fmt::format("{} has an unknown form: {}", what, storage::excerpt(body))};
}

std::string text_in(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// "Mon, 19 Sep 2016 18:29:47 GMT"; empty once the event has begun.
std::optional<std::int64_t> http_date(const std::string& text) {
  const auto seconds = ::curl_getdate(text.c_str(), nullptr);
  return seconds < 0 ? std::nullopt : std::optional<std::int64_t>(seconds);
}

}  // namespace

storage::Result<Notice> ec2_notice(const std::string& body) {
  const json notice = json::parse(body, nullptr, /*allow_exceptions=*/false);
  const std::string action = notice.is_object() ? text_in(notice, "action") : "";
  if (action.empty()) return another_form("EC2's notice", body);
  const std::string time = text_in(notice, "time");
  const auto end = storage::parse_time(time);
  return Notice{{fmt::format("EC2 will {} this machine{}", storage::excerpt(action), end ? " at " + time : ""), end}};
}

storage::Result<Notice> gce_notice(const std::string& body) {
  if (body.starts_with("FALSE")) return Notice();
  if (!body.starts_with("TRUE")) return another_form("Compute Engine's notice", body);
  return Notice{{"Compute Engine is taking this machine back", std::nullopt}};
}

storage::Result<Notice> azure_notice(const std::string& body, const std::string& machine) {
  constexpr const char* kEnds[] = {"Preempt", "Terminate", "Redeploy", "Reboot"};
  const json document = json::parse(body, nullptr, /*allow_exceptions=*/false);
  const json events = document.is_object() ? document.value("Events", json()) : json();
  if (!events.is_array()) return another_form("Azure's document of scheduled events", body);
  Notice first;
  for (const json& event : events) {
    if (!event.is_object()) return another_form("Azure's scheduled event", body);
    const std::string type = text_in(event, "EventType");
    if (std::find(std::begin(kEnds), std::end(kEnds), type) == std::end(kEnds)) continue;
    const json machines = event.value("Resources", json::array());
    if (!machines.is_array()) return another_form("Azure's scheduled event", body);
    if (std::find(machines.begin(), machines.end(), json(machine)) == machines.end()) continue;
    const auto end = http_date(text_in(event, "NotBefore"));
    // An event that has begun comes before all others.
    if (first && (!first->machine_end || (end && *end >= *first->machine_end))) continue;
    first = {fmt::format("Azure has scheduled the event {} for this machine{}", type,
                         end ? ", not before " + text_in(event, "NotBefore") : ""),
             end};
  }
  return first;
}

}  // namespace holdfast
