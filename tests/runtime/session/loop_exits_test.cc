// Loops that the program leaves or declares complete: by break, return, exceptions, finish(), done() and exit().
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

int count_to(Session& session, double& x, std::uint64_t count, double leaves_at) {
  session.track("x", x);
  for ([[maybe_unused]] auto& step : session.steps({.count = count})) {
    x += 1;
    if (x == leaves_at) break;
  }
  return session.finish();
}

}  // namespace

TEST_CASE("a_step_left_by_break_counts_and_the_next_start_continues_after_it") {
  const Run run;
  double x = 0;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 100, 5); }) == kRunAgain);
  CHECK(has_line(run.said(), {"step 5", "100", "session.done()"}));
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 5);
  CHECK(run.versions()[0].values.at("x") == 5);
  x = -1;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 7, 0); }) == kDone);
  CHECK(x == 7);
}

TEST_CASE("return_and_exceptions_leave_a_loop_as_break_does") {
  for (const bool throws : {false, true}) {
    const Run run;
    double x = 0;
    const auto life = [&](int leaves_at) {
      return run.session([&](Session& session) {
        session.track("x", x);
        try {
          [&] {
            for (auto& step : session.steps({.count = 6})) {
              x += 1;
              if (static_cast<int>(step.number()) != leaves_at) continue;
              if (throws) throw std::runtime_error("the program's own");
              return;
            }
          }();
        } catch (const std::runtime_error&) {
        }
        return session.finish();
      });
    };
    CHECK(life(4) == kRunAgain);
    REQUIRE(run.versions().size() == 1);
    CHECK(run.versions()[0].position.step == 4);
    x = -1;
    CHECK(life(0) == kDone);
    CHECK(x == 6);
  }
}

TEST_CASE("a_loop_that_is_left_in_its_last_step_is_complete") {
  const Run run;
  double x = 0;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 5, 5); }) == kDone);
  CHECK(has_line(run.said(), {"left", "last step", "complete"}));
  CHECK_FALSE(has_line(run.said(), {"exception"}));
  const Run other;
  CHECK(other.session([&](Session& session) {
    auto loader = batches();
    for (auto& batch : session.steps(loader, {.epochs = 1})) {
      if (batch.number() == 5) break;
    }
    return session.finish();
  }) == kDone);
}

TEST_CASE("an_exception_in_a_loops_last_step_is_reported_and_needs_another_start") {
  const Run run;
  int steps = 0;
  const auto life = [&](bool throws) {
    return run.session([&](Session& session) {
      session.track("steps", steps);
      try {
        for (auto& step : session.steps({.count = 3})) {
          ++steps;
          if (throws && step.number() == 3) throw std::runtime_error("out of memory");
        }
      } catch (const std::runtime_error&) {
      }
      return session.finish();
    });
  };
  CHECK(life(true) == kRunAgain);
  CHECK(has_line(run.said(), {"exception", "last step", "next start"}));
  CHECK_FALSE(has_line(run.said(), {"last step", "complete"}));
  steps = 0;
  CHECK(life(false) == kDone);
  CHECK(steps == 3);
}

TEST_CASE("the_last_epochs_body_is_not_repeated_if_it_is_left_after_its_batches") {
  for (const std::string how : {"break", "finish", "exception"}) {
    CAPTURE(how);
    const Run run;
    int bodies = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        auto loader = batches();
        session.track("bodies", bodies);
        try {
          for (auto& epoch : session.epochs(loader, 2)) {
            for ([[maybe_unused]] auto& batch : epoch) continue;
            ++bodies;
            if (bodies < 2) continue;
            if (how == "break") break;
            if (how == "finish") return session.finish();
            throw std::runtime_error("at the end");
          }
        } catch (const std::runtime_error&) {
        }
        return session.finish();
      });
    };
    CHECK(life() == (how == "exception" ? kRunAgain : kDone));
    CHECK(bodies == 2);
    for (int again = 0; again < 2; ++again) {
      bodies = 0;
      CHECK(life() == kDone);
      CHECK(bodies == 2);
    }
  }
}

TEST_CASE("finish_in_a_loops_body_leaves_the_loop") {
  const Run run;
  double x = 0;
  const auto life = [&](std::uint64_t leaves_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& step : session.steps({.count = 6})) {
        x += 1;
        if (step.number() == leaves_at) return session.finish();
      }
      return session.finish();
    });
  };
  CHECK(life(3) == kRunAgain);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 3);
  CHECK(life(0) == kDone);
  CHECK(x == 6);
}

TEST_CASE("a_loop_declared_done_is_complete_and_the_next_start_skips_it") {
  for (const bool breaks : {false, true}) {
    const Run run;
    int steps = 0, epochs = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        session.track("steps", steps).track("epochs", epochs);
        for (auto& step : session.steps({.count = 100})) {
          ++steps;
          if (step.number() == 4) session.done("converged");
          if (step.number() == 4 && breaks) break;
        }
        auto loader = batches();
        for (auto& epoch : session.epochs(loader, 9)) {
          for ([[maybe_unused]] auto& batch : epoch) ++steps;
          if (++epochs == 2) session.done();
        }
        return session.finish();
      });
    };
    CHECK(life() == kDone);
    CHECK(has_line(run.said(), {"complete", "step 4", "converged"}));
    CHECK(steps == 14);
    CHECK(life() == kDone);
    CHECK(steps == 14);
    CHECK(epochs == 2);
  }
  const Run run;
  run.session([](Session& session) { CHECK_THROWS_AS(session.done("late"), Error); });
}

TEST_CASE("an_epoch_left_by_break_reports_how_many_samples_it_did_not_use") {
  const Run run;
  run.session([](Session& session) {
    auto loader = batches();
    for (auto& epoch : session.epochs(loader, 2)) {
      for (auto& batch : epoch) {
        if (epoch.number() == 0 && batch.number() == 2) break;
      }
    }
    CHECK(session.step() == 7);
    return session.finish();
  });
  CHECK(has_line_in_order(run.said(), {"epoch 1", "6", "10 samples"}));
}

TEST_CASE("exit_in_a_loops_body_saves_nothing_and_reports_the_lost_steps", "[full]") {
  Run run;
  run.every = "2";
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    run.session([](Session& session) {
      double x = 0;
      session.track("x", x);
      for (auto& step : session.steps({.count = 9})) {
        x += 1;
        if (step.number() == 6) std::exit(3);
      }
      return session.finish();
    });
    ::_exit(9);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(run.versions().back().position.step == 4);
  CHECK(has_line(run.said(), {"exit()", "session.finish()", "1 step"}));
}
