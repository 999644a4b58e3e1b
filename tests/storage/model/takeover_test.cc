// Every schedule of two writers, and of three with one save each. World::broken_promises lists what must hold.
#include <iostream>

#include "catch.h"
#include "scenarios.h"
#include "search.h"

namespace holdfast::storage::model {
namespace {

void explore(const std::vector<Scenario>& scenarios, std::uint64_t most_states = ~std::uint64_t{0}) {
  for (const Scenario& scenario : scenarios) {
    SearchOptions options;
    options.most_states = most_states;
    options.seed = most_states == ~std::uint64_t{0} ? 0 : 1;
    const SearchResult result = search(scenario, options);
    std::cout << "model: " << scenario.name << ": states=" << result.states << " transitions=" << result.transitions
              << " ends=" << result.ends << " with_a_stale_writer=" << result.ends_superseded
              << (result.complete ? " all" : " a slice") << std::endl;
    for (const std::string& what : result.broken) FAIL_CHECK(what);
    // A scenario in which the writers never meet would prove nothing.
    CHECK(result.ends_superseded > 0);
  }
}

TEST_CASE("two_writers_with_a_save_each_lose_no_acknowledged_work") { explore(small_scenarios()); }

// More than a tenth of each scenario's states; all states, 1.2 and 7.2 million, take half an hour.
TEST_CASE("two_writers_with_retention_rewind_and_orphan_removal_lose_nothing_in_a_slice", "[full]") {
  explore(two_writer_scenarios(), 30000);
}
TEST_CASE("three_writers_with_a_save_each_lose_nothing_in_a_slice", "[full]") {
  explore(three_writer_scenarios(), 720000);
}

TEST_CASE("two_writers_with_retention_rewind_and_orphan_removal_lose_nothing", "[long]") {
  explore(two_writer_scenarios());
}
TEST_CASE("three_writers_with_a_save_each_lose_nothing", "[long]") { explore(three_writer_scenarios()); }

}  // namespace
}  // namespace holdfast::storage::model
