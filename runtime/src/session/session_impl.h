// A session's members. Its files: session_start.cc (options, device, ranks), session_restore.cc (the version to resume
// from), session_loops.cc and session_loop.cc (the program's loops), session_boundaries.cc (what is due between steps),
// session_save.cc (a version, a rollback), session_finish.cc (the end).
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_manager.h"
#include "device/device.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/runtime/platform/session_clock.h"
#include "holdfast/runtime/policy/on_non_finite.h"
#include "holdfast/runtime/ranks/rank_environment.h"
#include "holdfast/runtime/session/session.h"
#include "logging/console.h"
#include "notices/notice_watch.h"
#include "policy/save_policy.h"
#include "process/uncaught_error.h"
#include "session/progress.h"
#include "session/restore_outcome.h"
#include "session/save_state.h"
#include "session/stop_agreement.h"
#include "session/tracked_lifetimes.h"
#include "snapshot/tensor_feed.h"

namespace holdfast {

inline constexpr const char* kVersion = "0.1.0";

/// From SIGTERM to SIGKILL where nothing else is known: of Slurm (KillWait) and Kubernetes.
inline constexpr std::chrono::seconds kUsualNotice{30};

/// How many times a save that must not fail is tried.
inline constexpr int kAttemptsAtTheEnd = 3;

struct Session::Impl {
  using Clock = std::chrono::steady_clock;

  class SessionLoop;  // session_loop.h

  Impl(detail::OptionsRead given, RankEnvironment ranks);
  ~Impl();

  bool is_main() const { return group.is_main(); }
  void require_same_options(const std::vector<detail::OptionInForce>& in_force);
  void restore();
  void seed_generators();
  storage::Status load_on_all(const storage::VersionReader& version);
  void open_as_main();
  void open_as_other();
  storage::Status load(const storage::Manifest& manifest, TensorFeed* feed, const storage::VersionReader* version);
  void begin_new_run();
  void log_start();
  std::shared_ptr<SessionLoop> begin_loop(LoopPosition position, Site site);
  std::optional<StepInfo> next_step(Site site);
  void leave_next_loop(const LoopPosition& outer, bool thrown);
  void load_again();
  void require_finite_base();
  void note_generators_alike();
  void save_between_loops(Site site);
  void leave_all();
  void boundary(const std::shared_ptr<LoopPosition>& loop, bool over);
  void hold(const std::string& reason);
  Snapshot capture() const { return lifetimes.capture(tracked); }
  bool may_have_diverged();
  std::string clock_asks_for_save(Boundary here) const;
  void stop_if_time_is_over(Clock::time_point now);
  void stop_if_preempted();
  void start_together(const std::shared_ptr<LoopPosition>& loop);
  bool save(const std::string& reason, bool insist);
  bool try_save(const std::string& reason, const std::string& afterwards);
  bool write_out(const std::string& reason, Snapshot captured, Clock::time_point begin, const std::string& afterwards,
                 bool may_refuse);
  void save_held();
  storage::Result<storage::SavedVersion> write(const std::string& reason, Snapshot captured, bool may_refuse,
                                               std::string& more);
  bool roll_back(bool insist);
  void prune();
  void say(const std::string& line) { console.say(line); }
  /// Reports a call of exit() before finish().
  static void report_exit();
  bool is_inside() const { return !progress.open.empty(); }
  ProgressFacts progress_facts(const LoopPosition& loop) const;
  std::optional<Clock::time_point> end_of_copies();
  int finish(Site site);

  // One session at a time, because signals, seeds and the rendezvous belong to the process.
  struct Sole {
    Sole();
    ~Sole() { alive = false; }
    Sole(const Sole&) = delete;
    Sole& operator=(const Sole&) = delete;
    static std::atomic<bool> alive;
  } sole;
  static std::atomic<Impl*> current;

  SessionOptions options;
  Surroundings around;
  Platform platform;
  Profile profile;
  std::uint64_t asked_seed = options.seed;
  std::uint64_t generator_seed = options.seed;
  OnNonFinite on_non_finite;
  SaveEvery every;
  StopAgreement agreement;
  Console console;
  DeviceChoice device;
  Group group;
  RunState tracked;
  TrackedLifetimes lifetimes;
  Progress progress;
  std::vector<std::weak_ptr<SessionLoop>> loops;  // that run, the innermost last
  std::shared_ptr<SessionLoop> next_loop;         // of session.next(), which the program does not hold
  // A loop of session.next() that was declared done and then apparently left by break, and how many loops run around
  // it.
  std::optional<std::pair<Site, std::size_t>> left_when_done;

  std::vector<std::shared_ptr<torch::nn::Module>> modules;  // of the pipelines
  std::vector<std::unique_ptr<Pipeline>> pipelines;
  std::vector<std::pair<const Pipeline*, std::uint64_t>>
      not_updated;  // in this session yet, with their earlier updates

  std::unique_ptr<CheckpointManager> manager;  // rank 0's
  RestoreOutcome resumed;
  std::uint64_t loops_begun = 0;  // in this process

  SaveState saving;
  std::vector<std::pair<std::string, double>> last_logged;
  StepInfo step_info;
  Site here;  // in the program: the loop that runs, or finish()
  bool gradients_were_compared = false;
  bool looked_for_optimizers = false;
  Clock::time_point begun = Clock::now();
  TimeLeft time;                                   // at `begun`
  std::optional<Clock::time_point> boundary_done;  // when the last one was left
  std::optional<Clock::time_point> stop_arrived;   // a signal's, at the earliest
  std::unique_ptr<NoticeWatch> notices;            // the first rank's on each host, if they were asked for
  std::optional<Clock::time_point> machine_end;    // as the cloud has announced
  Costs step_costs;
  Costs save_costs;

  std::optional<std::string> stop;  // why the run ends early
  bool superseded = false;
  std::optional<int> finished;
  std::optional<TellBeforeDeath> before_death;  // the last member: it uses the group
};

}  // namespace holdfast
