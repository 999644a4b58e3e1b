// Two machines with homes of their own and one mirror: they take the run over from each other through the mirror, or
// continue it apart while one cannot reach it; uploads of dead processes arrive late; folders are copied by hand.
#include "places.h"

#include <algorithm>
#include <iostream>
#include <random>

#include "catch.h"

namespace holdfast::storage::model {
namespace {

// Runs one schedule. Reports a broken promise in a sentence with the seed.
PlacesTotals run_place_schedule(std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&random](std::uint32_t n) { return static_cast<std::size_t>(random() % n); };
  constexpr std::size_t kMachines = 3;  // the third begins with a folder that was copied by hand, or with none
  Places places(kMachines);
  std::vector<std::string> ids = {"22222222", "44444444", "66666666", "88888888", "aaaaaaaa", "cccccccc"};
  std::shuffle(ids.begin(), ids.end(), random);
  std::vector<std::string> running(kMachines);
  std::string schedule;
  const auto check = [&] {
    for (const std::string& what : places.broken_promises()) FAIL("seed " << seed << ": " << what << schedule);
  };
  const std::size_t check_one_in = 20 + below(60);
  bool was_copied = false;
  for (;;) {
    const auto able = places.able();
    if (able.empty() && ids.empty()) break;
    if (below(static_cast<std::uint32_t>(check_one_in)) == 0) check();
    const std::size_t machine = below(kMachines);
    const std::string& present = running[machine];
    const bool is_free = present.empty() || places.is_over(present);
    if (!ids.empty() && is_free && (able.empty() || below(12) == 0)) {
      if (machine == 2 && present.empty() && !std::exchange(was_copied, true) && below(2) == 0) {
        places.copy_half(below(2), machine, random);
        schedule += "\n  a folder was copied to machine 2";
      }
      SessionPlan plan;
      plan.session = ids.back();
      ids.pop_back();
      plan.home = machine;
      plan.saves = 1 + below(5);
      plan.keep_last = 1 + below(2);
      plan.mirror_is_unreachable = below(4) == 0;
      plan.uploads_after_death = below(2) == 0;
      schedule += "\n  " + plan.session.substr(0, 1) + " starts on machine " + std::to_string(machine) +
                  (plan.mirror_is_unreachable ? " without the mirror" : "");
      places.start(plan);
      running[machine] = plan.session;
      continue;
    }
    if (able.empty()) continue;
    const std::string fiber = able[below(static_cast<std::uint32_t>(able.size()))];
    if (below(40) == 0) {
      const auto owner = std::find_if(running.begin(), running.end(),
                                      [&](const std::string& one) { return !one.empty() && one[0] == fiber[0]; });
      if (owner != running.end() && !places.is_over(*owner)) {
        schedule += "\n  " + fiber.substr(0, 1) + " dies before " + places.next(fiber);
        places.kill(*owner);
        continue;
      }
    }
    for (std::size_t burst = 1 + below(below(4) == 0 ? 24 : 4); burst > 0; --burst) {
      const auto still = places.able();
      if (std::find(still.begin(), still.end(), fiber) == still.end()) break;
      schedule += "\n  " + fiber + " " + places.next(fiber);
      places.step(fiber);
    }
  }
  check();
  return places.totals();
}

void run_places(std::uint32_t first, std::uint32_t count) {
  PlacesTotals all;
  for (std::uint32_t seed = first; seed < first + count; ++seed) {
    const PlacesTotals one = run_place_schedule(seed);
    all.steps += one.steps;
    all.deaths += one.deaths;
    all.acknowledged += one.acknowledged;
    all.mirrored += one.mirrored;
    all.superseded += one.superseded;
    all.forks += one.forks;
  }
  std::cout << "places: random schedules=" << count << " steps=" << all.steps << " deaths=" << all.deaths
            << " acknowledged=" << all.acknowledged << " mirrored=" << all.mirrored << " superseded=" << all.superseded
            << " reported_forks=" << all.forks << " lost=0" << std::endl;
  CHECK(all.deaths > count / 10);
  CHECK(all.mirrored > count);
  CHECK(all.superseded > 0);
  CHECK(all.forks > 0);
}

TEST_CASE("two_thousand_random_schedules_of_machines_with_one_mirror_lose_nothing", "[full]") {
  run_places(1000, 2000);
}

TEST_CASE("twenty_thousand_random_schedules_of_machines_with_one_mirror_lose_nothing", "[long]") {
  run_places(10000, 20000);
}

}  // namespace
}  // namespace holdfast::storage::model
