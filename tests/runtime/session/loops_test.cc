// Loops of a session: how they count their steps, and which are refused.
#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;
using storage::StatusCode;

}  // namespace

TEST_CASE("each_loop_numbers_its_own_steps_and_the_session_counts_those_of_innermost_loops") {
  const Run run;
  run.session([](Session& session) {
    std::vector<std::uint64_t> outer, inner;
    for (auto& a : session.steps({.count = 2})) {
      outer.push_back(a.number());
      for (auto& b : session.steps({.count = 3})) inner.push_back(b.number());
      outer.push_back(a.number());
    }
    CHECK(session.step() == 6);
    for (auto& step : session.steps({.count = 2})) inner.push_back(step.number());
    CHECK(session.step() == 8);
    CHECK(outer == std::vector<std::uint64_t>{1, 1, 2, 2});
    CHECK(inner == std::vector<std::uint64_t>{1, 2, 3, 1, 2, 3, 1, 2});
    return session.finish();
  });
}

TEST_CASE("a_loop_inside_a_loop_over_the_same_loader_is_refused_when_it_begins") {
  const Run run;
  run.session([](Session& session) {
    auto loader = batches();
    bool refused = false;
    try {
      for ([[maybe_unused]] auto& outer : session.steps(loader, {.epochs = 1})) {
        for ([[maybe_unused]] auto& inner : session.steps(loader, {.epochs = 1})) FAIL("it began");
      }
    } catch (const Error& error) {
      refused = error.code() == StatusCode::invalid && has_line(error.what(), {"loader", "session.evaluate()"});
    }
    CHECK(refused);
  });
}

TEST_CASE("a_loop_without_a_count_runs_until_it_is_declared_done") {
  const Run run;
  double loss = 64;
  const auto life = [&](double stops_at) {
    return run.session([&](Session& session) {
      session.track("loss", loss);
      for ([[maybe_unused]] auto& step : session.steps()) {
        loss /= 2;
        if (loss == stops_at) session.stop("enough");
        if (loss < 1) session.done("converged");
      }
      return session.finish();
    });
  };
  CHECK(life(8) == kRunAgain);
  loss = 0;
  CHECK(life(0) == kDone);
  CHECK(loss == 0.5);
  CHECK(life(0) == kDone);
  CHECK(loss == 0.5);
}

TEST_CASE("a_loop_count_may_have_a_signed_type_but_not_a_negative_value") {
  const Run run;
  run.session([](Session& session) {
    const int three = 3;
    const std::int64_t two = 2;
    int steps = 0;
    for ([[maybe_unused]] auto& step : session.steps({.count = three})) ++steps;
    auto loader = batches();
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = two})) ++steps;
    CHECK(steps == 13);
    const int below = -1;
    const Error refusal = refusal_of([&] { session.steps({.count = below}); });
    CHECK(refusal.code() == StatusCode::invalid);
    CHECK(has_line(refusal.what(), {"count", "-1"}));
    CHECK_THROWS_AS(session.epochs(loader, below), Error);
    CHECK_THROWS_AS(session.steps(loader, {.epochs = below}), Error);
  });
}
