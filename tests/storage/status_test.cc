#include "holdfast/storage/status.h"

#include <set>
#include <string>

#include "catch.h"

using namespace holdfast::storage;

TEST_CASE("a_retry_can_help_against_a_failed_access_and_another_process_only") {
  std::set<std::string> may_pass;
  for (int code = 0; to_string(static_cast<StatusCode>(code)) != "?"; ++code) {
    if (!is_permanent(static_cast<StatusCode>(code))) may_pass.emplace(to_string(static_cast<StatusCode>(code)));
  }
  CHECK(may_pass == std::set<std::string>{"busy", "unreadable"});
}
