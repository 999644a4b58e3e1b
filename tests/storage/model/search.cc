#include "search.h"

#include <memory>
#include <random>
#include <unordered_set>
#include <utility>

namespace holdfast::storage::model {
namespace {

using Schedule = std::vector<std::uint8_t>;  // which writer is resumed

// Runs the schedule again and records what each step did.
std::string describe(const Scenario& scenario, const Beginning& beginning, const Fault& fault,
                     const Schedule& schedule) {
  World world(scenario, beginning, fault);
  std::string text;
  for (const std::uint8_t writer : schedule) {
    text += "\n  " + scenario.writers[writer].session.substr(0, 1) + " " + world.next(writer);
    world.step(writer);
  }
  return text;
}

}  // namespace

SearchResult search(const Scenario& scenario, const SearchOptions& options) {
  const Beginning beginning = begin(scenario);
  SearchResult result;
  std::unordered_set<Fingerprint, FingerprintHash> seen;
  std::unordered_set<Fingerprint, FingerprintHash> known_good;
  std::mt19937 random(options.seed);
  std::vector<Schedule> to_do = {{}};
  while (!to_do.empty() && result.states < options.most_states) {
    if (options.seed != 0) std::swap(to_do[random() % to_do.size()], to_do.back());
    // 1. Reach the state where this branch leaves the explored ones, by running its schedule again.
    Schedule schedule = std::move(to_do.back());
    to_do.pop_back();
    World world(scenario, beginning, options.fault);
    for (const std::uint8_t writer : schedule) world.step(writer);
    if (!schedule.empty()) ++result.transitions;
    for (;;) {
      // 2. A state that occurred before has been explored, or will be.
      const Fingerprint state = world.fingerprint();
      if (!seen.insert(state).second) break;
      ++result.states;
      // 3. Everything must hold with all writers dead from here on.
      for (const std::string& what : world.broken_promises(known_good)) {
        result.broken.push_back(scenario.name + ": " + what + describe(scenario, beginning, options.fault, schedule));
      }
      if (schedule.size() > options.most_steps) {
        result.broken.push_back(scenario.name + ": the writers never finish" +
                                describe(scenario, beginning, options.fault, schedule));
      }
      if (!result.broken.empty() && options.stop_at_first) return result;
      if (!result.broken.empty()) break;
      // 4. Continue with one writer; the others wait for their turn.
      std::vector<std::uint8_t> able;
      for (std::size_t writer = 0; writer < world.writers(); ++writer) {
        if (!world.finished(writer)) able.push_back(static_cast<std::uint8_t>(writer));
      }
      if (able.empty()) {
        ++result.ends;
        if (world.superseded() > 0) ++result.ends_superseded;
        break;
      }
      const std::size_t first = options.seed == 0 ? 0 : random() % able.size();
      for (std::size_t i = 0; i < able.size(); ++i) {
        if (i == first) continue;
        to_do.push_back(schedule);
        to_do.back().push_back(able[i]);
      }
      schedule.push_back(able[first]);
      world.step(able[first]);
      ++result.transitions;
    }
  }
  result.complete = to_do.empty() && result.broken.empty();
  return result;
}

}  // namespace holdfast::storage::model
