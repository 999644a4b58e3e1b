// When a session accepts, keeps and drops the objects that it tracks.
#include <cstdint>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"

namespace {

using namespace holdfast;

[[gnu::noinline]] void train_with_locals(Session& session, const char* name, bool untracks) {
  std::vector<double> values(20, 1.0);
  std::vector<std::string> texts(100, std::string(name));
  const std::string texts_name = std::string(name) + "_texts";
  session.track(name, values).track(texts_name, texts);
  for ([[maybe_unused]] auto& step : session.steps({.count = 2})) values[0] += 1;
  if (!untracks) return;
  session.untrack(name);
  session.untrack(texts_name);
}

[[gnu::noinline]] void train_others(Session& session) {
  double others[3] = {1, 2, 3};
  std::uint64_t steps = 0;
  session.track("steps", steps);
  for ([[maybe_unused]] auto& step : session.steps({.count = 2})) others[steps++] += 1;
}

}  // namespace

TEST_CASE("track_and_untrack_in_a_loops_body_are_refused") {
  const Run run;
  run.session([&](Session& session) {
    double early = 0, late = 0;
    session.track("early", early);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
      CHECK_THROWS_AS(session.track("late", late), Error);
      CHECK_THROWS_AS(session.untrack("early"), Error);
    }
    return session.finish();
  });
}

TEST_CASE("a_loop_that_begins_after_a_tracked_object_was_destroyed_is_refused") {
  const Run run;
  std::string said;
  run.session([&](Session& session) {
    train_with_locals(session, "values", /*untracks=*/false);
    try {
      train_others(session);
    } catch (const Error& error) {
      CHECK(error.code() == storage::StatusCode::invalid);
      said = error.what();
    }
  });
  CHECK(has_line(said, {"'values'", "untrack(\"values\")"}));
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].values.at("values").at(0) == 3);
}

TEST_CASE("the_state_of_untracked_objects_stays_in_later_versions") {
  const Run run;
  CHECK(run.session([&](Session& session) {
    train_with_locals(session, "first", /*untracks=*/true);
    train_with_locals(session, "second", /*untracks=*/true);
    return session.finish();
  }) == kDone);
  const auto last = run.versions().back();
  CHECK(last.position.step == 4);
  CHECK(last.values.at("first").at(0) == 3);
  CHECK(last.values.at("second").at(0) == 3);
  CHECK(last.find("first_texts:items:lengths") != nullptr);

  std::vector<std::string> texts;
  std::vector<double> values;
  run.session([&](Session& session) {
    session.track("first", values).track("first_texts", texts);
    session.restore();
  });
  CHECK(values.at(0) == 3);
  CHECK(texts == std::vector<std::string>(100, "first"));
}

TEST_CASE("progress_cannot_be_untracked") {
  const Run run;
  run.session([](Session& session) {
    CHECK_THROWS_AS(session.untrack("holdfast"), Error);
    return session.finish();
  });
}
