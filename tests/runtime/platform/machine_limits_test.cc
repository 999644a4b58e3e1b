#include "holdfast/runtime/platform/machine_limits.h"

#include "catch.h"
#include "made_up_machine.h"

namespace holdfast {
namespace {

using test::machine;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
const Machine kMachine{16, 64 * kGiB};
const char* const kVersion2 = "40 30 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

TEST_CASE("without_groups_the_machine_is_the_limit") {
  const auto limits = limits_of(kMachine, machine({}));
  CHECK(limits.cpus == 16);
  CHECK(limits.cpus_from == "16 processors");
  CHECK(limits.memory == 64 * kGiB);
  CHECK(limits.memory_from == "the machine's memory");
}

TEST_CASE("the_lowest_limit_of_all_groups_above_the_process_counts") {
  const auto limits = limits_of(kMachine, machine({},
                                                  {{"/proc/self/cgroup", "0::/jobs/job7/step0\n"},
                                                   {"/sys/fs/cgroup/jobs/job7/step0/cpu.max", "max 100000\n"},
                                                   {"/sys/fs/cgroup/jobs/job7/step0/memory.max", "34359738368\n"},
                                                   {"/sys/fs/cgroup/jobs/job7/cpu.max", "250000 100000\n"},
                                                   {"/sys/fs/cgroup/jobs/job7/memory.max", "8589934592\n"},
                                                   {"/sys/fs/cgroup/jobs/memory.max", "max\n"}},
                                                  kVersion2));
  CHECK(limits.cpus == 2.5);
  CHECK(limits.cpus_from == "cpu.max of /sys/fs/cgroup/jobs/job7: 250000 of 100000 µs");
  CHECK(limits.memory == 8 * kGiB);
  CHECK(limits.memory_from == "memory.max of /sys/fs/cgroup/jobs/job7");
}

TEST_CASE("a_containers_own_group_is_the_root_of_what_it_sees") {
  const std::map<std::string, std::string> files = {{"/proc/self/cgroup", "0::/\n"},
                                                    {"/sys/fs/cgroup/cpu.max", "50000 100000\n"},
                                                    {"/sys/fs/cgroup/memory.max", "1073741824\n"}};
  const auto limits = limits_of(kMachine, machine({}, files, kVersion2));
  CHECK(limits.cpus == 0.5);
  CHECK(limits.memory == kGiB);
}

TEST_CASE("groups_of_version_1_are_read_each_from_its_own_hierarchy") {
  const auto limits = limits_of(
      kMachine, machine({},
                        {{"/proc/self/cgroup", "5:cpu,cpuacct:/docker/7f\n4:memory:/docker/7f\n1:name=systemd:/x\n"},
                         {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n"},
                         {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
                         {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"}},
                        "50 40 0:30 /docker/7f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
                        "51 40 0:31 /docker/7f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"));
  CHECK(limits.cpus == 4);
  CHECK(limits.memory == 2 * kGiB);
  CHECK(limits.memory_from == "memory.limit_in_bytes of /sys/fs/cgroup/memory");
}

TEST_CASE("no_limit_of_version_1_is_a_very_large_number_or_minus_one") {
  const auto limits =
      limits_of(kMachine, machine({},
                                  {{"/proc/self/cgroup", "5:cpu:/\n4:memory:/\n"},
                                   {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"},
                                   {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"},
                                   {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"}},
                                  "50 40 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
                                  "51 40 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"));
  CHECK(limits.cpus == 16);
  CHECK(limits.memory == 64 * kGiB);
}

TEST_CASE("a_group_path_from_outside_the_container_does_not_hide_its_limit") {
  const auto limits = limits_of(
      kMachine, machine({}, {{"/proc/self/cgroup", "0::/../../other\n"}, {"/sys/fs/cgroup/memory.max", "1073741824\n"}},
                        kVersion2));
  CHECK(limits.memory == kGiB);
}

TEST_CASE("this_machine_has_a_processor_and_memory") {
  const Machine here = this_machine();
  CHECK(here.cpus >= 1);
  CHECK(here.memory > 100'000'000);
  const auto limits = limits_of(here, look_around());
  CHECK(limits.cpus > 0);
  CHECK(limits.cpus <= here.cpus);
  CHECK(limits.memory <= here.memory);
}

}  // namespace
}  // namespace holdfast
