// Every crash at every call, on a disk that loses unsynced data.
#include "catch.h"
#include "counts.h"
#include "crash_search.h"

namespace holdfast::storage::crash {
namespace {

void require_nothing_lost(const CrashSearch& search, std::size_t at_least) {
  print_counts("states=" + std::to_string(search.states()) + " recoveries=" + std::to_string(search.recoveries()) +
               " lost=" + std::to_string(search.broken().size()));
  for (const std::string& broken : search.broken()) UNSCOPED_INFO(broken);
  REQUIRE(search.broken().empty());
  REQUIRE(search.states() >= at_least);
}

}  // namespace

TEST_CASE("acknowledged_work_survives_any_crash_in_one_operation") {
  require_nothing_lost(search_all(Crash::power, {10, seed() % 10}, all_runs(1)), 200);
}

TEST_CASE("acknowledged_work_survives_any_crash_a_slice_of_all_sequences", "[full]") {
  require_nothing_lost(search_all(Crash::power, {10, seed() % 10}, all_runs(3)), 10'000);
}

TEST_CASE("acknowledged_work_survives_any_crash_in_all_sequences", "[long]") {
  require_nothing_lost(search_all(Crash::power, {}, all_runs(3)), 100'000);
}

TEST_CASE("what_a_second_process_was_promised_survives_the_loss_of_power_a_slice", "[full]") {
  require_nothing_lost(search_all(Crash::process_first, {10, seed() % 10}, all_runs(2)), 1'000);
}

TEST_CASE("what_a_second_process_was_promised_survives_the_loss_of_power", "[long]") {
  require_nothing_lost(search_all(Crash::process_first, {}, all_runs(2)), 10'000);
}

}  // namespace holdfast::storage::crash
