// While loops of Session::next().
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"

namespace {

using namespace holdfast;
using storage::StatusCode;

}  // namespace

TEST_CASE("a_loop_of_next_resumes_at_its_step_and_ends_by_done") {
  Run run;
  run.every = "1";
  double x = 0;
  std::vector<std::uint64_t> numbers;
  const auto life = [&](std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      while (const auto step = session.next()) {
        numbers.push_back(step->number());
        x += 1;
        if (step->number() == stops_at) session.stop("enough");
        if (x == 7) session.done("converged");
      }
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.25;
      return session.finish();
    });
  };
  CHECK(life(3) == kRunAgain);
  CHECK(run.versions().back().position.step == 3);
  x = -1;
  CHECK(life(5) == kRunAgain);
  CHECK(life(0) == kDone);
  CHECK(numbers == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7});
  CHECK(x == 7.5);
  x = -1;
  CHECK(life(0) == kDone);
  CHECK(x == 7.5);
}

TEST_CASE("a_loop_of_next_left_by_break_ends_as_other_loops_do") {
  for (const bool says_done : {false, true}) {
    const Run run;
    double x = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        session.track("x", x);
        while (session.next()) {
          x += 1;
          if (x == 4 && says_done) session.done("converged");
          if (x == 4 || x == 9) break;
        }
        if (says_done) {
          for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.25;
        }
        return session.finish();
      });
    };
    CHECK(life() == (says_done ? kDone : kRunAgain));
    CHECK(run.versions().back().position.step == (says_done ? 6 : 4));
    CHECK(life() == (says_done ? kDone : kRunAgain));
    CHECK(x == (says_done ? 4.5 : 9));
  }
}

TEST_CASE("loops_of_next_nest_with_other_loops") {
  double x = 0;
  const auto life = [&](const Run& run, double stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& round : session.steps({.count = 3})) {
        while (session.next()) {
          for (auto& step : session.steps({.count = 2})) {
            x = x * 1.5 + static_cast<double>(round.number() + step.number());
            if (x > stops_at) session.stop("enough");
          }
          if (x > 20 * static_cast<double>(round.number())) {
            session.done();
            break;
          }
        }
      }
      return session.finish();
    });
  };
  const Run undisturbed, stopped;
  CHECK(life(undisturbed, 1e9) == kDone);
  const double expected = std::exchange(x, 0);
  for (const double stops_at : {3.0, 10.0, 40.0}) CHECK(life(stopped, stops_at) == kRunAgain);
  CHECK(life(stopped, 1e9) == kDone);
  CHECK(x == expected);
}

TEST_CASE("ambiguous_calls_of_next_are_refused") {
  const Run run;
  run.session([](Session& session) {
    while (session.next()) {
      const Error nested = refusal_of([&] { session.next(); });
      INFO(nested.what());
      CHECK(nested.code() == StatusCode::invalid);
      CHECK(has_line(nested.what(), {"next_loops_test.cc:", "session.done()", "session.steps()"}));
      session.done();
    }
    const Error called_again = refusal_of([&] {
      while (session.next()) {
        session.done();
        for ([[maybe_unused]] auto& step : session.steps({.count = 1})) continue;
      }
    });
    INFO(called_again.what());
    CHECK(called_again.code() == StatusCode::invalid);
    CHECK(has_line(called_again.what(), {"next_loops_test.cc:", "session.next()", "another"}));
    CHECK_FALSE(has_line(called_again.what(), {"session.steps()"}));
  });
}
