// Where a program with several loops continues after a stop.
#include <signal.h>
#include <torch/torch.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>

#include "catch.h"
#include "holdfast/runtime/data/loop.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "session/progress.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

}  // namespace

TEST_CASE("consecutive_loops_resume_at_their_positions") {
  const Run run;
  std::mt19937 engine(5);
  std::uint64_t warm_up = 0, drawn = 0, hash = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    auto other = batches();
    session.track("engine", engine).track("warm_up", warm_up).track("drawn", drawn).track("hash", hash);
    session.track("other", other);
    for (auto& batch : session.steps(loader, {.epochs = 1})) {
      warm_up += 1;
      if (batch.number() == stop_at) ::raise(SIGTERM);
    }
    for ([[maybe_unused]] auto& step : session.steps({.count = 20})) {
      const auto sample = static_cast<std::uint64_t>(other.draw().data.sum().item<double>());
      hash = hash * 31 + engine() + sample;
      ++drawn;
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
    }
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  const auto expected = hash;
  for (const std::uint64_t stop_at : {3, 5, 6, 12, 25}) {
    const Run again;
    engine.seed(5);
    warm_up = drawn = hash = 0;
    CHECK(again.session([&](Session& s) { return program(s, stop_at); }) == (stop_at == 25 ? kDone : kRunAgain));
    engine.seed(99);
    CHECK(again.session([&](Session& s) { return program(s, 0); }) == kDone);
    CHECK(hash == expected);
    CHECK(warm_up == 5);
    CHECK(drawn == 20);
  }
}

TEST_CASE("a_later_loop_keeps_its_position_while_an_earlier_one_is_resumed") {
  const Run run;
  std::uint64_t first = 0, second = 0;
  const auto program = [&](Session& session, std::uint64_t epochs, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("first", first).track("second", second);
    const auto stop = [&] {
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
    };
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = epochs})) ++first, stop();
    for ([[maybe_unused]] auto& step : session.steps({.count = 4})) ++second, stop();
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 1, 7); }) == kRunAgain);
  CHECK(second == 2);
  CHECK(run.session([&](Session& s) { return program(s, 2, 9); }) == kRunAgain);  // in the first loop, now longer
  CHECK(run.session([&](Session& s) { return program(s, 2, 0); }) == kDone);
  CHECK(first == 10);
  CHECK(second == 4);
}

TEST_CASE("two_loops_over_one_loader_count_their_own_epochs") {
  const Run run;
  std::uint64_t first = 0, second = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("first", first).track("second", second);
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 1})) ++first;
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 2})) {
      ++second;
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
    }
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 12); }) == kRunAgain);
  CHECK(second == 7);
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  CHECK(first == 5);
  CHECK(second == 10);
}

TEST_CASE("an_earlier_loop_cannot_be_extended_after_a_later_phase_has_begun") {
  const Run run;
  const auto life = [&](std::uint64_t first, std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      double x = 0, y = 0;
      session.track("x", x);
      for ([[maybe_unused]] auto& step : session.steps({.count = first})) x += 1;
      session.track("y", y);
      for (auto& step : session.steps({.count = 4})) {
        y += 1;
        if (step.number() == stops_at) session.stop("enough");
      }
      CHECK(y == static_cast<double>(stops_at == 0 ? 4 : stops_at));
      return session.finish();
    });
  };
  CHECK(life(3, 2) == kRunAgain);
  CHECK_THROWS_AS(life(5, 0), Error);
  CHECK(life(3, 0) == kDone);
}

TEST_CASE("progress_without_a_current_loop_resumes_at_the_last_loop") {
  Progress progress;
  LoopPosition counted;
  counted.target = 9;
  const auto first = progress.begin(counted);
  const auto position = [](int done) { return nlohmann::json{{"kind", "count"}, {"done", done}}; };
  progress.set_state({{"step", 7}, {"samples", 0}, {"loops", {position(9), position(3)}}});
  progress.resume(*first);
  CHECK(first->done == 9);
  CHECK_FALSE(first->saved_here);
  const auto second = progress.begin(counted);
  progress.resume(*second);
  CHECK(second->done == 3);
  CHECK(second->saved_here);
}
