// Stop and save requests, by signals and by Session::stop().
#include <signal.h>
#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

// Calls back when it is saved and loaded.
struct Watched {
  std::function<void()> on_save = [] {};
  std::function<void()> on_load = [] {};
  void save(State& state) const {
    state.put("there", true);
    on_save();
  }
  void load(const State&) { on_load(); }
};

}  // namespace

TEST_CASE("a_stop_signal_saves_at_the_next_boundary_and_the_same_command_continues") {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const Run run;
    const auto former = ::signal(signal, SIG_DFL);  // nohup and background shells ignore some signals
    double sum = 0;
    std::vector<std::uint64_t> steps;
    const auto remember = [&](std::uint64_t step) {
      steps.push_back(step);
      if (step == 3 && steps.size() == 3) ::raise(signal);
    };
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kRunAgain);
    REQUIRE(run.versions().size() == 1);
    CHECK(run.versions()[0].position.step == 3);
    sum = -1000;  // the saved value is restored
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kDone);
    CHECK(steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    CHECK(sum == 2 * 45);
    ::signal(signal, former);
  }
}

TEST_CASE("a_stop_signal_during_start_stops_before_the_first_step") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    ::raise(SIGTERM);
    return sum_samples(s, 2, sum);
  }) == kRunAgain);
  CHECK(sum == 0);
  CHECK(run.versions().empty());
}

TEST_CASE("a_stop_signal_during_a_save_or_a_load_stops_the_run") {
  Run run;
  run.every = "2";
  double sum = 0;
  Watched watched;
  const auto program = [&](Session& session) {
    session.track("watched", watched);
    return sum_samples(session, 2, sum, [&](std::uint64_t step) {
      watched.on_save = [step] {
        if (step == 2) ::raise(SIGTERM);
      };
    });
  };
  CHECK(run.session(program) == kRunAgain);
  auto versions = run.versions();
  REQUIRE(versions.size() == 2);
  CHECK(versions[0].position.step == 2);
  CHECK(versions[1].position.step == 3);
  CHECK(versions[1].reason == "SIGTERM");
  const double saved = std::exchange(sum, -1000);
  watched.on_load = [] { ::raise(SIGTERM); };
  CHECK(run.session(program) == kRunAgain);
  CHECK(sum == saved);
  CHECK(run.versions().size() == 2);
  watched.on_load = [] {};
  CHECK(run.session(program) == kDone);
  CHECK(sum == 2 * 45);
}

TEST_CASE("sigusr1_saves_and_training_continues") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [](std::uint64_t step) {
      if (step == 2) ::raise(SIGUSR1);
    });
  }) == kDone);
  REQUIRE(run.versions().size() == 2);
  CHECK(run.versions()[0].position.step == 2);
  CHECK(run.versions()[0].reason == "SIGUSR1");
  CHECK(run.versions()[1].reason == "end");
}

TEST_CASE("a_stop_signal_between_loops_takes_effect_when_the_next_loop_begins") {
  const Run run;
  double x = 0;
  const auto life = [&](bool stops) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for ([[maybe_unused]] auto& step : session.steps({.count = 3})) x += 1;
      x *= 2;
      if (stops) ::raise(SIGTERM);
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.5;
      return session.finish();
    });
  };
  CHECK(life(true) == kRunAgain);
  x = -1;
  CHECK(life(false) == kDone);
  CHECK(x == 7);
}

TEST_CASE("session_stop_stops_at_the_next_boundary") {
  const Run run;
  double x = 0;
  const auto life = [&](std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& step : session.steps({.count = 6})) {
        if (step.number() == stops_at) session.stop("the disk is needed");
        x += 1;
      }
      return session.finish();
    });
  };
  CHECK(life(2) == kRunAgain);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 2);
  CHECK(run.versions()[0].reason == "the disk is needed");
  CHECK(run.said().find("the disk is needed") != std::string::npos);
  CHECK(life(0) == kDone);
  CHECK(x == 6);
}
