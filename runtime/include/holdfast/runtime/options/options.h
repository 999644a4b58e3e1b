// The session's own options: what the program writes in code and what its user says when starting it.
//
//   code  <  configuration file: "every": "10min"  <  environment: HOLDFAST_EVERY=10min
//         <  command line: --holdfast.every 10min, --holdfast.every=10min
//
// The file is the one that --holdfast.config, else HOLDFAST_CONFIG, else the code names: one JSON object whose keys are
// options, with comments (// and /* */) where they help. Strings are texts, whole numbers are numbers (or texts such as
// "every": 500), switches are true or false, lists are lists of strings. Relative paths, the file's own and those in
// it, count from the working directory.
//
// The session takes its own arguments out of argv and leaves the program's in their order; after "--" nothing is taken.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

struct SessionOptions {
  std::string config = "";      // path of a configuration file; empty: none
  std::string dir = "runs";     // where runs are kept
  std::string run = "";         // its folder there; empty: the program's file name
  std::uint64_t seed = 0;       // of every generator and every order
  std::string every = "10min";  // when to save, as in parse_save_every (save_policy.h)
  std::uint64_t keep = 3;       // versions to keep; 0: all
  std::string device = "auto";  // cpu | cuda | auto
  std::string from = "";        // the version to go on from; empty: the newest
  bool fresh = false;           // start from scratch although versions exist
  bool take_over = false;       // although another process seems to own the run
  std::string precision = "";   // of pipelines with Amp: auto | fp32 | bf16 | fp16; empty: as the program says
  bool deterministic = false;   // kernels that repeat exactly, where LibTorch has a choice; an error where it has none
  int threads = 0;              // intra-op; 0: OMP_NUM_THREADS where you set it, else as saved
  std::string load = "exact";   // exact: checkpoint and program must name the same state | subset: load what both name
  std::string join_within = "5min";                // how long to wait for the other ranks at the start
  std::string silence = "15s";                     // a rank that nobody has heard from for so long counts as dead
  std::string say_waiting = "30s";                 // waiting for a slow rank is said once, after so long
  std::vector<std::string> allow_missing = {};     // patterns of names that the checkpoint may lack
  std::vector<std::string> allow_unexpected = {};  // patterns of names that the program may lack
  std::vector<std::string> allow_mismatch = {};    // patterns of names that may have another shape or dtype
  bool allow_dataset_change = false;               // in the middle of an epoch: that epoch begins again
  std::string on_nonfinite = "note";               // where NaN or infinities appear: note | stop | rollback:K
};

/// One option as it stands, for --holdfast.help.
struct OptionInForce {
  std::string name;      // "take-over"
  std::string argument;  // "NUMBER"; empty: a switch
  std::string meaning;
  std::string fallback;  // the default, as text
  std::string value;
  std::string origin;  // "default", "code", "configs/kaggle.json:4", "environment", "command line"
};

struct OptionsRead {
  SessionOptions values;
  std::vector<OptionInForce> in_force;
  bool help = false;                        // --holdfast.help was given: print help_text and exit with 0
  std::vector<std::string> arguments = {};  // the session's own, as they stood in argv
};

/// Reads the configuration file, the environment and the command line, and removes the session's arguments from argv.
/// Throws Error(invalid) with a sentence that names the option, where it was given (of the file: its line) and, for a
/// name that is none, the nearest one.
OptionsRead read_options(int& argc, char** argv, const SessionOptions& code, char** environment = environ);

/// Every option with its default, its present value and where that came from.
std::string help_text(const OptionsRead& options);

}  // namespace holdfast
