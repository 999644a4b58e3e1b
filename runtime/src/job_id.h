// What started this process and starts the same command again when it fails: a launcher or a scheduler's job.
#pragma once

#include <string>

namespace holdfast {

/// The same for every start by that launcher or job, and for no other; empty where nobody restarts this process. Of
/// rank 0: `holdfast launch` and torchrun are known by their process, Slurm by job and step.
std::string job_id();

}  // namespace holdfast
