// The session's own options: set by the program in code, and by its user at the start.
//
//   platform's default  <  code  <  configuration file: "every": "10min"  <  environment: HOLDFAST_EVERY=10min
//                       <  command line: --holdfast.every 10min, --holdfast.every=10min
//
// --holdfast.config, else HOLDFAST_CONFIG, else the code names the file: one JSON object whose keys are options.
// Comments (// and /* */) are allowed. Text options are strings (or numbers, such as "every": 500), whole numbers are
// numbers, switches are true or false, lists are lists of strings. Relative paths, the file's own and those in it,
// count from the working directory.
//
// The session removes its own arguments from argv and leaves the program's in their order; it ignores those after "--".
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/options/option_types.h"
#include "holdfast/runtime/options/option_value.h"
#include "holdfast/runtime/platform/platform.h"
#include "holdfast/runtime/platform/profile.h"
#include "holdfast/runtime/platform/surroundings.h"
#include "holdfast/runtime/policy/on_non_finite.h"
#include "holdfast/runtime/policy/save_every.h"

namespace holdfast {

namespace detail {
using Duration = std::chrono::nanoseconds;
}

/// Code sets a value (`.every = SaveEvery{.steps = 500}`, `.silence = std::chrono::seconds(30)`) or the text that a
/// user would write for it (`.every = "500"`, `.silence = "30s"`).
struct SessionOptions {
  std::string config = "";                                 // path of a configuration file; empty: none
  std::string platform = "auto";                           // whose defaults apply: auto, or a name (platform.h)
  std::string dir = "runs";                                // where runs are kept; by default the platform chooses
  std::vector<std::string> mirror = {};                    // folders of runs that receive copies of the versions
  std::vector<std::string> search = {};                    // folders below which versions of the run are looked for
  std::string run = "";                                    // the run's folder in dir; empty: the program's file name
  std::uint64_t seed = 0;                                  // seeds every generator and every order
  OptionValue<SaveEvery> every = "10min";                  // when to save; its texts: parse_save_every (save_every.h)
  std::uint64_t keep = 3;                                  // versions to keep; 0: all
  OptionValue<DeviceKind> device = DeviceKind::automatic;  // cpu | cuda | auto
  std::string from = "";                                   // the version to resume from; empty: the newest
  bool fresh = false;                                      // start from scratch although versions exist
  bool take_over = false;                                  // start although another process seems to own the run
  std::optional<OptionValue<Precision>> precision = {};    // of pipelines that use Amp; empty: the program's choice
  bool deterministic = false;  // only kernels that give the same bits each time; an error if LibTorch has none
  int threads = 0;             // intra-op; 0: OMP_NUM_THREADS if set, else as saved
  OptionValue<LoadMode> load = LoadMode::exact;        // exact | subset
  OptionValue<detail::Duration> time_limit = "0s";     // stop in time before so long after start(); 0: the platform's
  OptionValue<detail::Duration> time_margin = "2min";  // what must be left after the last save
  std::string notices = "none";                        // whose preemption notices: none, auto, ec2, gce, azure
  OptionValue<detail::Duration> join_within = "5min";  // how long to wait for the other ranks at the start
  OptionValue<detail::Duration> silence = "15s";       // a rank without a heartbeat for so long counts as dead
  OptionValue<detail::Duration> say_waiting = "30s";   // log a slow rank once after waiting this long
  std::vector<std::string> allow_missing = {};         // patterns of names that the checkpoint may lack
  std::vector<std::string> allow_unexpected = {};      // patterns of names that the program may lack
  std::vector<std::string> allow_mismatch = {};        // patterns of names that may have another shape or dtype
  bool allow_dataset_change = false;                   // in the middle of an epoch: that epoch begins again
  OptionValue<OnNonFinite> on_nonfinite = "note";      // when NaN or infinities appear: note | stop | rollback:K
};

namespace detail {

/// One option with its present value, for --holdfast.help.
struct OptionInForce {
  std::string name;      // "take-over"
  std::string argument;  // "NUMBER"; empty: a switch
  std::string meaning;
  std::string fallback;  // the default, as text
  std::string value;
  std::string origin;  // "default", "platform kaggle", "code", "configs/kaggle.json:4", "environment", "command line"
};

struct OptionsRead {
  SessionOptions values;  // without unread texts
  std::vector<OptionInForce> in_force;
  bool help = false;                        // --holdfast.help was given: print help_text and exit with 0
  std::vector<std::string> arguments = {};  // the session's own, as given in argv
  Surroundings around = {};                 // what platform and profile were decided from
  Platform platform = {};                   // its place is the option's, if one was given
  Profile profile = {};                     // of that place
};

/// Reads the configuration file, the environment and the command line, and removes the session's arguments from argv.
/// Throws Error(invalid) with a sentence that names the option, where it was given (in a file: the line) and, for an
/// unknown name, the nearest valid one.
OptionsRead read_options(int& argc, char** argv, const SessionOptions& code, char** environment = environ,
                         const Surroundings& around = look_around());

/// Every option with its default, its present value and the value's origin.
std::string help_text(const OptionsRead& options);

}  // namespace detail
}  // namespace holdfast
