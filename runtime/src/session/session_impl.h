// A session's members. Three files implement it: session_start.cc (options, ranks, the version to resume from),
// session_boundaries.cc (loops, and what is due between steps), session_save.cc (a version, and the end).
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_manager.h"
#include "checkpoint/non_finite_counts.h"
#include "device/device.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/runtime/ranks/rank_environment.h"
#include "holdfast/runtime/session/session.h"
#include "logging/console.h"
#include "policy/on_non_finite.h"
#include "policy/save_policy.h"
#include "process/signals.h"
#include "process/stack_owner.h"
#include "process/uncaught_error.h"
#include "session/progress.h"
#include "state/tensor_feed.h"

namespace holdfast {

inline constexpr const char* kVersion = "0.1.0";

struct Session::Impl {
  using Clock = std::chrono::steady_clock;

  // A loop of the program at the session's boundaries. The ranges that the program holds share it; it does nothing
  // once its loop is over.
  class SessionLoop final : public Loop {
   public:
    SessionLoop(Impl& session, std::shared_ptr<LoopPosition> position, Site site)
        : session_(session), position_(std::move(position)), site_(site) {}
    bool more() const override { return !is_over_ && !session_.stop && !position_->at_end(); }
    StepInfo begin_step() override;
    void end_step() override;
    void begin_epoch() override;
    void begin_epoch_steps() override;
    void leave_epoch_steps() override;
    void end_epoch() override;
    void complete() override;
    void leave(bool thrown) override;
    bool stopping() const override { return is_over_ || session_.stop || position_->at_end(); }
    c10::Device device() const override { return session_.device.device; }
    void load_again_in_epoch(bool again) { load_again_in_epoch_ = again; }
    const LoopPosition& position() const { return *position_; }
    const Site& site() const { return site_; }

   private:
    void leave_now(bool thrown);
    void count_step();
    void end(LoopPosition::Over how);

    Impl& session_;
    std::shared_ptr<LoopPosition> position_;
    Site site_;
    bool load_again_in_epoch_ = false;
    bool is_over_ = false;
  };

  Impl(OptionsRead given, RankEnvironment ranks);
  ~Impl();

  bool is_main() const { return group.is_main(); }
  void require_same_options(const std::vector<OptionInForce>& in_force);
  void restore();
  void seed_generators();
  storage::Status load_on_all(const storage::VersionReader& version);
  void open_as_main();
  void open_as_other();
  storage::Status load(const storage::Manifest& manifest, TensorFeed* feed, const storage::VersionReader* version);
  void begin_afresh();
  void say_start();
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
  Snapshot capture() const;
  void retire(const std::string& name);
  void require_alive() const;
  bool may_have_parted();
  StopRequest orders_here(const LoopPosition& loop, const Boundary& here);
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
  std::uint64_t asked_seed = options.seed;
  std::uint64_t generator_seed = options.seed;
  OnNonFinite on_non_finite;
  SaveEvery every;
  SignalWatch signals;
  Console console;
  DeviceChoice device;
  Group group;
  RunState tracked;
  std::map<std::string, StackOwner> owners;  // of tracked variables on the stack, by their names
  std::map<std::string, Snapshot> retired;   // the last state of objects that are no longer tracked
  std::optional<Snapshot> before_untrack;    // the state at the first untrack() since the last loop
  bool tracks_late = false;                  // something was tracked since the version was restored
  std::set<std::string> waiting;             // in the checkpoint, and not tracked yet
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
  bool opened = false;
  bool has_base = false;  // a version was restored
  Restored restored;
  std::vector<std::string> not_exact;
  bool ranks_changed = false;
  std::uint64_t base_step = 0;
  std::uint64_t boundaries_at_load = 0;
  std::uint64_t loops_begun = 0;  // in this process
  std::string base_steps_lost;    // a sentence on the steps that the earlier session did not save

  LastSave last_save;
  std::string last_version;            // its text for users
  std::optional<storage::Uid> newest;  // rank 0's: the version that was restored or saved last
  NonFiniteCounts non_finite;          // of that version; without one, of the state at the run's beginning
  std::string refused;                 // why the state at this boundary is not saved but rolled back
  bool stops_at_non_finite = false;
  std::string version_before;  // with stops_at_non_finite: the version before; empty: none
  // The state at the end of the last loop, if it was not saved: finish() writes it, because the tracked objects may be
  // gone by then.
  std::optional<Snapshot> held;
  std::string held_reason;
  nlohmann::json pending_metrics = nlohmann::json::object();
  std::vector<std::pair<std::string, double>> last_logged;
  bool save_requested = false;
  StopRequest asked;         // requests that the ranks agreed on and have not done yet
  bool wish_is_out = false;  // this rank sent a request and has no answer yet
  bool stop_was_wished = false;
  std::optional<std::string> stop_reason;  // from session.stop()
  StepInfo step_info;
  Site here;  // in the program: the loop that runs, or finish()
  bool gradients_were_compared = false;
  bool looked_for_optimizers = false;
  int failures = 0;
  Clock::time_point next_attempt;
  Clock::time_point begun = Clock::now();
  int saves = 0;

  std::optional<std::string> stop;  // why the run ends early
  bool superseded = false;
  std::optional<int> finished;
  std::optional<TellBeforeDeath> before_death;  // the last member: it uses the group
};

}  // namespace holdfast
