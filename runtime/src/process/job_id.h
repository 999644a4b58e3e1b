// What started this process: a launcher or a scheduler's job.
#pragma once

#include <string>

namespace holdfast {

/// Identifies the launcher or job: the same at each of its starts, and different for any other; empty if nothing
/// restarts this process. For rank 0: `holdfast launch` and torchrun are identified by their process, Slurm by job and
/// step.
std::string job_id();

/// Names the nearest process above this one that is an MPI launcher or its part on this host; empty if there is none.
/// All ranks that it started here find the same process, also through scripts; ranks of another job find another one.
std::string mpi_launcher_id();

}  // namespace holdfast
