#include "holdfast/storage/status.h"

#include <set>
#include <string>

#include "catch.h"

using namespace holdfast::storage;

TEST_CASE("only_busy_and_unreadable_are_worth_a_retry") {
  std::set<std::string> may_pass;
  for (int code = 0; to_string(static_cast<StatusCode>(code)) != "?"; ++code) {
    if (!is_permanent(static_cast<StatusCode>(code))) may_pass.emplace(to_string(static_cast<StatusCode>(code)));
  }
  CHECK(may_pass == std::set<std::string>{"busy", "unreadable"});
}
