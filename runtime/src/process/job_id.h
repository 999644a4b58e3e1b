// What started this process: a launcher or a scheduler's job.
#pragma once

#include <string>

namespace holdfast {

/// The same for every start by that launcher or job, and for no other; empty where nobody restarts this process. Of
/// rank 0: `holdfast launch` and torchrun are known by their process, Slurm by job and step.
std::string job_id();

/// Names the nearest process above this one that is an MPI launcher or its part on this host; empty where there is
/// none. All ranks that it started here find the same one, through whatever scripts, and ranks of another job another
/// one.
std::string mpi_launcher_id();

}  // namespace holdfast
