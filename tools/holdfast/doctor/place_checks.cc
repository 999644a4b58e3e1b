#include "doctor/place_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "terminal/phrases.h"

namespace holdfast::tools {

using std::chrono::nanoseconds;
using std::chrono::seconds;
using storage::format_duration;

namespace {

constexpr seconds kClockDifference{5};
constexpr seconds kSlowEntry{2};
constexpr std::uint64_t kLittleSpace = std::uint64_t{2} << 30;
constexpr double kAlmostFull = 0.9;

std::string rate(std::uint64_t bytes, nanoseconds time) {
  const double each_second = static_cast<double>(bytes) / std::max(1e-9, std::chrono::duration<double>(time).count());
  return format_bytes(static_cast<std::uint64_t>(each_second)) + "/s";
}

// The store's own message ends with the remedy, if it knows one.
Check failed(const std::string& folder, const std::string& message) {
  const auto end = message.find("; ");
  if (end == std::string::npos) return {Grade::bad, folder, message, "choose another folder with --holdfast.dir"};
  return {Grade::bad, folder, message.substr(0, end), message.substr(end + 2)};
}

}  // namespace

Checks place_checks(const std::string& folder, const PlaceFacts& facts, const Mount* mount, const Loss& loss) {
  const std::string type = mount == nullptr ? "an unknown file system" : mount->type;
  if (!facts.outcome.ok()) return {failed(folder, facts.outcome.message())};
  Checks checks;
  const auto add = [&](Grade grade, std::string what, std::string remedy = {}) {
    checks.push_back({grade, folder, std::move(what), std::move(remedy)});
  };
  if (!facts.reads_back) {
    add(Grade::bad, "what was written is read back differently", "do not keep checkpoints there");
  }
  if (!facts.refuses_second_create || !facts.capabilities.create_only_enforced) {
    add(Grade::bad, "a file that exists can be created a second time, so two sessions could overwrite each other",
        "choose another folder with --holdfast.dir");
  }
  if (!facts.lists_what_was_created || !facts.capabilities.list_after_create) {
    add(Grade::bad, "a listing does not show what was just created, so a session could miss another one",
        "choose another folder with --holdfast.dir");
  }
  if (!loss.empty()) add(Grade::bad, loss.what, loss.remedy);
  if (!facts.capabilities.durable_put) {
    add(Grade::note,
        fmt::format(
            "syncing files on {} does not prove that they are on a disk: versions are process-safe, not fsynced", type),
        "they survive a kill of the program, not always the loss of the machine: keep a second copy");
  }
  if (facts.free < kLittleSpace) {
    add(Grade::note, fmt::format("only {} of {} are free", format_bytes(facts.free), format_bytes(facts.total)),
        "free some space, or keep fewer versions with --holdfast.keep");
  }
  if (facts.clock_ahead > kClockDifference || facts.clock_ahead < -kClockDifference) {
    add(Grade::note,
        fmt::format("the file system's clock is {} {} this machine's",
                    format_duration(facts.clock_ahead < nanoseconds(0) ? -facts.clock_ahead : facts.clock_ahead),
                    facts.clock_ahead < nanoseconds(0) ? "behind" : "ahead of"),
        "set both clocks (NTP): ages in holdfast ls are wrong otherwise; resuming does not depend on them");
  }
  if (facts.entry > kSlowEntry) {
    add(Grade::note, fmt::format("publishing one small file takes {}", format_duration(facts.entry)),
        "save less often, for example --holdfast.every 30min");
  }
  add(Grade::good, fmt::format("{}: creates only new files, lists and reads them back; {}; {} free", type,
                               facts.capabilities.durable_put ? "synced files are durable" : "not durable",
                               format_bytes(facts.free)));
  add(Grade::good,
      fmt::format("writes {} until durable, reads {}; a small file takes {}", rate(facts.payload, facts.writing),
                  rate(facts.payload, facts.reading), format_duration(facts.entry)));
  return checks;
}

Check quota_check(const Quota& quota, std::uint64_t used) {
  const std::string what = fmt::format("{} of {} are used", format_bytes(used), format_bytes(quota.bytes));
  const double part = static_cast<double>(used) / static_cast<double>(quota.bytes);
  if (part < kAlmostFull) return {Grade::good, quota.folder, what, ""};
  return {part < 1 ? Grade::note : Grade::bad, quota.folder, what + ", and the platform allows no more",
          "remove files there, or keep fewer versions with --holdfast.keep"};
}

}  // namespace holdfast::tools
