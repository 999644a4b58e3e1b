// How much of the machine this process may use. A container or batch job may grant less than the machine has, and a
// program that does not know it starts too many threads or is killed for its memory.
//
// Sources: the kernel's documentation of control groups, version 2 (cpu.max, memory.max) and version 1
// (cpu.cfs_quota_us, memory.limit_in_bytes); cgroups(7), the format of /proc/PID/cgroup.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast {

struct Machine {
  int cpus = 1;              // that the process may run on (sched_getaffinity)
  std::uint64_t memory = 0;  // bytes, all of it
};

struct MachineLimits {
  double cpus = 1;           // processors' worth of time; 0.5: half of one
  std::string cpus_from;     // "16 processors", "cpu.max of /sys/fs/cgroup/job: 400000 100000"
  std::uint64_t memory = 0;  // bytes
  std::string memory_from;   // "the machine's memory", "memory.max of /sys/fs/cgroup/job"
};

/// The machine under this process.
Machine this_machine();

/// The lowest limit of the process's control group and of every group above it, within what the machine has. Reads
/// /proc/self/cgroup and the groups' files through `around`.
MachineLimits limits_of(const Machine& machine, const Surroundings& around);

/// How many threads fit into the granted processors' time, at least 1; empty if the machine's number of processors
/// does.
std::optional<int> threads_to_set(const Machine& machine, const MachineLimits& limits);

}  // namespace holdfast
