// Longer programs than in the exhaustive scenarios, on random schedules: writers that start late, run in bursts, pause
// for long and die anywhere.
#include <iostream>
#include <random>

#include "catch.h"
#include "search.h"
#include "world.h"

namespace holdfast::storage::model {
namespace {

Scenario random_scenario(std::mt19937& random) {
  const auto below = [&random](std::uint32_t n) { return static_cast<std::size_t>(random() % n); };
  Scenario scenario;
  scenario.versions_before = below(4);
  const std::size_t writers = 2 + below(3);
  std::vector<std::string> sessions = {"22222222", "44444444", "aaaaaaaa", "cccccccc"};
  std::shuffle(sessions.begin(), sessions.end(), random);
  for (std::size_t i = 0; i < writers; ++i) {
    Program program;
    program.session = sessions[i];
    program.keep_last = 1 + below(3);
    if (below(4) == 0) program.rewind_to = below(8);
    for (std::size_t n = 3 + below(8); n > 0; --n) {
      constexpr Action kActions[] = {Action::save,  Action::save,  Action::save,
                                     Action::prune, Action::prune, Action::remove_orphans};
      program.actions.push_back(kActions[below(6)]);
    }
    scenario.name += program.session.substr(0, 1);
    scenario.writers.push_back(std::move(program));
  }
  return scenario;
}

struct Totals {
  std::uint64_t steps = 0;
  std::uint64_t deaths = 0;
  std::uint64_t checks = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t stale = 0;
};

// Runs one schedule. Reports a broken promise in a sentence with the seed.
void run_schedule(std::uint32_t seed, Totals& totals) {
  std::mt19937 random(seed);
  const Scenario scenario = random_scenario(random);
  std::unordered_set<Fingerprint, FingerprintHash> known_good;
  World world(scenario, begin(scenario), {});
  std::string schedule;
  const std::uint32_t check_one_in = 1 + random() % 16;
  for (;;) {
    std::vector<std::size_t> able;
    for (std::size_t writer = 0; writer < world.writers(); ++writer) {
      if (!world.finished(writer)) able.push_back(writer);
    }
    const bool last = able.empty();
    if (last || random() % check_one_in == 0) {
      ++totals.checks;
      for (const std::string& what : world.broken_promises(known_good)) {
        FAIL("seed " << seed << ", " << scenario.name << ": " << what << schedule);
      }
    }
    if (last) break;
    const std::size_t writer = able[random() % able.size()];
    if (random() % 24 == 0) {
      schedule += "\n  " + scenario.writers[writer].session.substr(0, 1) + " dies before " + world.next(writer);
      world.kill(writer);
      ++totals.deaths;
      continue;
    }
    for (std::uint32_t burst = 1 + random() % (random() % 4 == 0 ? 24 : 4); burst > 0 && !world.finished(writer);
         --burst) {
      schedule += "\n  " + scenario.writers[writer].session.substr(0, 1) + " " + world.next(writer);
      world.step(writer);
      ++totals.steps;
    }
  }
  totals.acknowledged += world.acknowledged();
  totals.stale += world.superseded();
}

void run_schedules(std::uint32_t first, std::uint32_t count) {
  Totals totals;
  for (std::uint32_t seed = first; seed < first + count; ++seed) run_schedule(seed, totals);
  std::cout << "model: random schedules=" << count << " steps=" << totals.steps << " deaths=" << totals.deaths
            << " checks=" << totals.checks << " acknowledged=" << totals.acknowledged
            << " stale_writers=" << totals.stale << " lost=0" << std::endl;
  CHECK(totals.deaths > 0);
  CHECK(totals.stale > 0);
}

TEST_CASE("two_thousand_random_schedules_of_two_to_four_writers_lose_nothing", "[full]") { run_schedules(1, 2000); }

TEST_CASE("a_hundred_thousand_random_schedules_lose_nothing", "[long]") { run_schedules(10000, 100000); }

}  // namespace
}  // namespace holdfast::storage::model
