// What a session is made of. Its work is told in three files: session_start.cc (options, ranks, the version it goes on
// from), session_boundaries.cc (loops, and what is due between steps), session_save.cc (a version, and the end).
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/runtime/console.h"
#include "holdfast/runtime/device.h"
#include "holdfast/runtime/options.h"
#include "holdfast/runtime/rank_environment.h"
#include "holdfast/runtime/save_policy.h"
#include "holdfast/runtime/session.h"
#include "holdfast/runtime/signals.h"
#include "progress.h"
#include "run_keeper.h"
#include "tensor_feed.h"
#include "uncaught_error.h"

namespace holdfast {

inline constexpr const char* kVersion = "0.1.0";

/// What the user tracks besides tensors. The run's own progress is left out: a loop that ends moves its loader on.
nlohmann::json user_values(const Captured& captured);

struct Session::Impl {
  using Clock = std::chrono::steady_clock;

  // A loop of the program at the session's boundaries.
  class SessionLoop final : public Loop {
   public:
    SessionLoop(Impl& session, std::size_t index, Site site) : session_(session), index_(index), site_(site) {}
    void start() override;
    bool more() const override { return !session_.stop && !position().at_end(); }
    StepInfo begin_step() override;
    void end_step() override;
    void begin_epoch() override;
    void end_epoch() override;
    bool stopping() const override { return session_.stop.has_value(); }
    c10::Device device() const override { return session_.device.device; }
    LoopPosition& position() const { return *session_.progress.loops[index_]; }

   private:
    Impl& session_;
    std::size_t index_;
    Site site_;
    std::uint64_t epoch_ = 0;  // begun last
  };

  Impl(OptionsRead given, RankEnvironment ranks);
  ~Impl();

  bool is_main() const { return group.is_main(); }
  void require_same_options(const std::vector<OptionInForce>& in_force);
  void restore();
  void open_as_main();
  void open_as_other();
  storage::Status load(const storage::Manifest& manifest, TensorFeed* feed, const storage::VersionReader* version);
  void begin_afresh();
  void say_start();
  Loop& add_loop(LoopPosition position, Site site);
  void boundary(const LoopPosition& loop);
  bool may_have_parted();
  StepOrder orders_here(const LoopPosition& loop, const Boundary& here);
  void start_together(const LoopPosition& loop);
  bool save(const std::string& reason, bool insist);
  bool try_save(const std::string& reason, const std::string& afterwards);
  storage::Result<storage::SavedVersion> write(const std::string& reason, Captured captured);
  void prune();
  bool is_inside() const { return in_step || in_epoch_body; }
  ProgressFacts progress_facts(const LoopPosition& loop) const;
  int finish(Site site);

  // Signals, seeds and the place where ranks meet are the process's.
  struct Sole {
    Sole();
    ~Sole() { alive = false; }
    Sole(const Sole&) = delete;
    Sole& operator=(const Sole&) = delete;
    static std::atomic<bool> alive;
  } sole;

  SessionOptions options;
  std::uint64_t asked_seed = options.seed;
  SaveEvery every;
  SignalWatch signals;
  Console console;
  DeviceChoice device;
  Group group;
  TrackedState tracked;
  Progress progress;
  std::vector<std::unique_ptr<SessionLoop>> loops;

  std::vector<std::shared_ptr<torch::nn::Module>> modules;  // of the pipelines
  std::vector<std::unique_ptr<Pipeline>> pipelines;
  std::vector<std::pair<const Pipeline*, std::uint64_t>>
      not_updated;  // in this session yet, with the updates of before

  std::unique_ptr<RunKeeper> keeper;  // rank 0's
  bool opened = false;
  bool has_base = false;  // a version was restored
  Restored restored;
  std::vector<std::string> not_exact;
  bool ranks_changed = false;
  std::uint64_t base_step = 0;
  std::string base_steps_lost;  // a sentence on what the session before did not save

  LastSave last_save;
  std::string last_version;    // as users say it
  nlohmann::json last_values;  // of the last version, to see at the end whether anything changed since
  nlohmann::json pending_metrics = nlohmann::json::object();
  std::vector<std::pair<std::string, double>> last_logged;
  bool save_requested = false;
  StepOrder asked;           // what the ranks agreed on and have not done yet
  bool wish_is_out = false;  // this rank asked for something and has no answer yet
  bool stop_was_wished = false;
  bool in_step = false;
  bool in_epoch_body = false;
  StepInfo step_info;
  Site here;  // in the program: the loop that runs, or finish()
  bool gradients_were_compared = false;
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
