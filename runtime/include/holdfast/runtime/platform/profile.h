// What a platform offers a run: where checkpoints survive, how long the machine stays, how much space there is. These
// are the defaults of options, so a configuration file or the command line replaces each of them.
//
// Limits change over time and between accounts. Sources: the platforms' documentation and users' reports, gathered for
// each platform beside its profile (profile.cc).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/runtime/platform/platform.h"
#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast {

/// A folder whose space the platform limits, whatever statvfs() reports.
struct Quota {
  std::string folder;
  std::uint64_t bytes = 0;
};

/// What happens to checkpoints when the machine goes away. Empty: they stay, or nothing is known.
struct Loss {
  std::string what = {};
  std::string remedy = {};
  bool empty() const { return what.empty(); }
};

struct Profile {
  std::string name;                                 // Platform::place
  std::string title;                                // "Kaggle, interactive"
  std::string home;                                 // the folder that holds the runs: the default of option dir
  std::string home_reason;                          // "/kaggle/working is kept with the notebook's version"
  std::vector<std::string> mirrors = {};            // folders that outlive the machine: the default of option mirror
  std::vector<std::string> search = {};             // where the output of earlier sessions is mounted
  std::optional<std::chrono::seconds> limit = {};   // of the machine's age; empty: none is known
  std::optional<std::chrono::seconds> notice = {};  // from SIGTERM to SIGKILL; empty: no notice is known
  std::optional<Quota> quota = {};
  int stopped_exit_code = kRunAgain;  // of a run that is saved and should be started again
  Loss loss = {};                     // of checkpoints on the machine's own disk
  std::string disk = {};              // a folder on that disk
};

/// `around` names folders of the user (SCRATCH, SLURM_SUBMIT_DIR, HOME) and what is mounted. Pure, and never fails:
/// an unknown name gets the profile of "local".
Profile profile_of(const std::string& place, const Surroundings& around);

/// Of checkpoints in `folder`, an absolute path.
Loss loss_in(const std::string& folder, const Profile& profile, const Platform& platform,
             const std::vector<Mount>& mounts);

}  // namespace holdfast
