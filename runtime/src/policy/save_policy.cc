#include "policy/save_policy.h"

#include <utility>

namespace holdfast {
namespace {

bool passed_multiple(std::uint64_t of, std::uint64_t from, std::uint64_t to) {
  return of != 0 && to > from && to / of > from / of;
}

}  // namespace

SaveDecision decide(const SaveEvery& every, const Boundary& here, const LastSave& last, const StopRequest& requests) {
  const auto save = [](std::string reason) { return SaveDecision{.save = true, .reason = std::move(reason)}; };
  const bool moved = here.step != last.step || here.epochs != last.epochs || here.boundaries != last.boundaries;
  if (!requests.stop.empty() && !here.last) {
    return {.save = moved || !requests.save.empty(), .stop = true, .reason = requests.stop};
  }
  if (!requests.save.empty()) return save(requests.save);
  if (!moved) return {};
  if (here.last && !here.one_of_several) return save("end");
  if (passed_multiple(every.steps, last.step, here.step))
    return save("every " + to_string(SaveEvery{.steps = every.steps}));
  if (passed_multiple(every.epochs, last.epochs, here.epochs))
    return save("every " + to_string(SaveEvery{.epochs = every.epochs}));
  if (every.time.count() && here.now - last.time >= every.time)
    return save("every " + to_string(SaveEvery{.time = every.time}));
  if (here.last) return {.hold = true, .reason = "end"};
  return {};
}

}  // namespace holdfast
