// One switch between two sessions at every call: like the exhaustive model of interleavings on a virtual store, but on
// the file store with its real order of system calls.
#include "two_sessions.h"

#include "catch.h"
#include "counts.h"

namespace holdfast::storage::crash {

TEST_CASE("a_session_paused_at_any_call_while_another_acts_loses_nothing") {
  const TwoSessions result = search_two_sessions(nullptr, false);
  print_counts("schedules=" + std::to_string(result.schedules) + " lost=" + std::to_string(result.broken.size()));
  for (const std::string& broken : result.broken) UNSCOPED_INFO(broken);
  CHECK(result.broken.empty());
  CHECK(result.schedules > 100);
}

}  // namespace holdfast::storage::crash
