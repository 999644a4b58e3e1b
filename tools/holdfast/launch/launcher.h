// Starts the ranks of this node and supervises them until none is left: one thread, one poll loop. teardown.h and
// restart_policy.h make the decisions; this class carries them out.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/status.h"
#include "launch/guard.h"
#include "launch/line_prefixer.h"
#include "launch/output.h"
#include "launch/restart_policy.h"
#include "launch/signals.h"
#include "launch/teardown.h"
#include "launch/world.h"

namespace holdfast::tools {

class Launcher {
 public:
  using Clock = std::chrono::steady_clock;
  struct Plan {
    std::vector<std::string> program;  // with its arguments
    World world;
    bool own_port = true;  // one node: rank 0 gets a socket that is already listening
    std::string logs;      // a folder; empty: the terminal
    RestartPolicy::Limits restarts;
    std::chrono::milliseconds grace{30'000};
  };

  /// Does not own `folder`, which must be empty, used by this launch only, and outlive the launcher.
  Launcher(Plan plan, std::string folder);

  /// Returns the exit code, or why launch itself failed. No process is left either way.
  storage::Result<int> run();

 private:
  /// What a rank writes to one of its pipes.
  struct Stream {
    int pipe = -1;  // -1: closed, or never opened
    std::optional<LinePrefixer> lines;
    Output* to = nullptr;
  };
  struct Rank {
    int number = 0;
    pid_t pid = -1;
    bool over = false;
    bool told_to_stop = false;
    Stream out, err;
    std::string log;
    long log_begin = 0;  // where the output of this start begins
  };

  storage::Status start_ranks(int number);
  storage::Status start_rank(const World& world, int local, const StartFacts& facts);
  StartOutcome look_after();
  void wait_for_something(Clock::time_point until, bool also_ranks);
  bool pause(std::chrono::milliseconds time);
  void flush();

  void handle_signals();
  void pass_on(int signal, bool to_group = false);
  void stand_still();
  void reap();
  void note_end(const RankEnd& end);
  bool all_over() const;
  bool nothing_left(Clock::time_point now);
  void read_from(Stream& stream, bool at_end);
  void reader_left(const Output& output);

  std::optional<std::uint64_t> saved_step() const;
  void show_failure(const StartOutcome& outcome, const Decision& decision);
  std::vector<std::string> last_lines(const Rank& rank) const;
  void say(const std::string& sentence);

  const Plan plan_;
  const std::string progress_file_;
  RestartPolicy policy_;
  Signals signals_;
  Guard guard_;
  std::unique_ptr<Output> standard_out_, standard_err_;  // the second is empty if both lead to the same place
  Output& out_;
  Output& err_;
  /// The only rank uses launch's terminal as if it had been started without launch.
  const bool shares_terminal_;

  std::vector<Rank> ranks_;
  Teardown teardown_;
  StartOutcome outcome_;
  bool stop_asked_ = false;   // at any time
  bool interrupted_ = false;  // by a SIGINT, at any time
  int exec_code_ = 0;         // the program cannot be executed; then nothing is started again
  std::optional<Clock::time_point> leftovers_until_;
  std::set<pid_t> leftovers_told_;
  const Stream* progress_owner_ = nullptr;
};

}  // namespace holdfast::tools
