// Every schedule of two writers, and of three with one save each: World::broken_promises says what must hold.
#include <iostream>

#include "catch.h"
#include "scenarios.h"
#include "search.h"

namespace holdfast::storage::model {
namespace {

void explore(const std::vector<Scenario>& scenarios, const SearchOptions& options) {
  for (const Scenario& scenario : scenarios) {
    const SearchResult result = search(scenario, options);
    std::cout << "model: " << scenario.name << ": states=" << result.states << " transitions=" << result.transitions
              << " ends=" << result.ends << " with_a_stale_writer=" << result.ends_superseded << std::endl;
    for (const std::string& what : result.broken) FAIL_CHECK(what);
    // A scenario in which the writers never meet would show nothing.
    CHECK(result.ends_superseded > 0);
  }
}

TEST_CASE("two_writers_with_a_save_each_lose_no_acknowledged_work") { explore(small_scenarios(), {}); }

TEST_CASE("two_writers_with_retention_rewind_and_orphan_removal_lose_no_acknowledged_work", "[full]") {
  explore(two_writer_scenarios(), {});
}

TEST_CASE("three_writers_with_a_save_each_lose_no_acknowledged_work", "[full]") { explore(three_writer_scenarios(), {}); }

}  // namespace
}  // namespace holdfast::storage::model
