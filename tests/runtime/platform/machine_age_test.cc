#include "holdfast/runtime/platform/machine_age.h"

#include <unistd.h>

#include "catch.h"
#include "made_up_machine.h"

namespace holdfast {
namespace {

using test::machine;

std::string stat_of_init(const std::string& name, long start_seconds) {
  return "1 (" + name + ") S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 " +
         std::to_string(start_seconds * sysconf(_SC_CLK_TCK)) + " 170000000 3000 1844 1 1\n";
}

TEST_CASE("age_counts_from_the_start_of_the_first_process") {
  const auto age = [](const std::string& stat, const std::string& uptime) {
    return machine_age(machine({}, {{"/proc/1/stat", stat}, {"/proc/uptime", uptime}}));
  };
  CHECK(age(stat_of_init("systemd", 0), "7200.55 10000.00\n") == std::chrono::seconds(7200));
  // A container that was started 7,000 s after its host.
  CHECK(age(stat_of_init("docker-init", 7000), "7200.55 10000.00\n") == std::chrono::seconds(200));
  CHECK(age(stat_of_init("a ) b (c", 7000), "7200.55 10000.00\n") == std::chrono::seconds(200));
  CHECK_FALSE(age("", "7200.55 1\n"));
  CHECK_FALSE(age(stat_of_init("init", 0), ""));
  CHECK_FALSE(age(stat_of_init("init", 9000), "7200.55 1\n"));
  CHECK_FALSE(machine_age(machine({})));
}

TEST_CASE("this_machine_has_an_age") { CHECK(machine_age(look_around()) >= std::chrono::seconds(0)); }

}  // namespace
}  // namespace holdfast
