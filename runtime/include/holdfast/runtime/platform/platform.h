// Where this process runs. The platform decides where checkpoints go and how long the machine stays; scheduler,
// launcher, container and cloud are independent of it: a Slurm job may run in a container on a cloud's machine.
//
// Sources of the variables and files: platforms' documentation and public code, named beside each rule (platform.cc).
#pragma once

#include <string>
#include <vector>

#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast {

struct Finding {
  std::string name = {};    // "kaggle"; empty: nothing was found
  std::string reason = {};  // "KAGGLE_KERNEL_RUN_TYPE=Interactive"
};

struct Platform {
  Finding place = {};      // one of platform_names()
  Finding scheduler = {};  // "slurm", "kubernetes", "pbs", "lsf", "htcondor"
  Finding launcher = {};   // "holdfast launch", "torchrun", "srun", "mpirun", "mpiexec", "jsrun"
  Finding container = {};  // "docker", "podman", "kubernetes", "apptainer", …
  Finding cloud = {};      // whose machine it is: "ec2", "gce", "azure"
};

/// Never fails: what nothing else explains is "local".
Platform detect(const Surroundings& around);

/// The names that Platform::place can have, in the order in which they are tried.
std::vector<std::string> platform_names();

/// Google Drive, if it is really mounted: a folder of this name may as well be on the machine's own disk.
const Mount* drive_mount(const std::vector<Mount>& mounts);

}  // namespace holdfast
