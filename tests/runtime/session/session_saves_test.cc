// What a session saves at its boundaries and at its end: versions, metrics, notes, and the progress for a launcher.
#include <signal.h>
#include <torch/torch.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.h"
#include "checkpoint/store_files.h"
#include "holdfast/runtime/session/session.h"
#include "session_run.h"
#include "storage/forwarding_files.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

}  // namespace

TEST_CASE("starting_a_complete_run_saves_nothing") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  const auto before = run.versions();
  sum = -1;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  CHECK(sum == 45);
  CHECK(run.versions().size() == before.size());
  CHECK(run.session([&](Session& s) { return sum_samples(s, 3, sum); }) == kDone);  // more epochs: it continues
  CHECK(sum == 3 * 45);
}

TEST_CASE("an_epochs_body_belongs_to_the_version_saved_at_its_end") {
  Run run;
  run.every = "1epoch";
  double sum = 0;
  int bodies = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("sum", sum).track("bodies", bodies);
    for (auto& epoch : session.epochs(loader, 3)) {
      for (auto& batch : epoch) {
        sum += batch.data.sum().item<double>();
        if (batch.number() == stop_at) ::raise(SIGTERM);
      }
      if (session.stopping()) break;
      ++bodies;
    }
    return session.finish();
  };
  SECTION("saved after the body") {
    run.session([&](Session& s) { return program(s, 7); });
    const auto versions = run.versions();
    REQUIRE(versions.size() == 2);
    CHECK(versions[0].values.at("bodies") == 1);
    CHECK(versions[0].position.step == 5);
    CHECK(versions[1].position.step == 7);
  }
  SECTION("asked to stop at its last step, the body is done by the next session, once") {
    CHECK(run.session([&](Session& s) { return program(s, 5); }) == kRunAgain);
    CHECK(bodies == 0);
  }
  const int before = bodies;
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  CHECK(bodies == 3);
  CHECK(before < 3);
  CHECK(sum == 3 * 45);
}

TEST_CASE("save_now_waits_for_the_boundary_and_keeps_its_metrics") {
  const Run run;
  double sum = 0;
  run.session([&](Session& session) {
    return sum_samples(session, 1, sum, [&](std::uint64_t step) {
      if (step == 2) session.save_now({{"accuracy", 0.5}});
      if (step == 2) CHECK(run.versions().empty());
    });
  });
  const auto versions = run.versions();
  REQUIRE(versions.size() == 2);
  CHECK(versions[0].position.step == 2);
  CHECK(versions[0].reason == "save_now");
  CHECK(versions[0].metrics == nlohmann::json{{"accuracy", 0.5}});
  CHECK(versions[1].metrics.empty());
}

TEST_CASE("consecutive_short_loops_do_not_each_save_at_their_end") {
  const Run run;
  double x = 0;
  const auto life = [&](int rounds) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (int round = 0; round < rounds; ++round) {
        for ([[maybe_unused]] auto& step : session.steps({.count = 5})) x += 1;
      }
      x = -7;  // after the last boundary
      return session.finish();
    });
  };
  CHECK(life(60) == kDone);
  const auto versions = run.versions();
  REQUIRE(versions.size() == 2);  // the end of the first loop, which could be the only one, and the program's
  CHECK(versions[0].position.step == 5);
  CHECK(versions[1].position.step == 300);
  CHECK(versions[1].values.at("x") == 300);
  CHECK(life(60) == kDone);
  CHECK(run.versions().size() == 2);
}

TEST_CASE("a_close_note_records_why_the_session_ended_and_its_steps_and_saves") {
  Run run;
  run.every = "2";
  Noted noted;
  run.session(noted.stopping_at(3));
  run.session(noted.stopping_at(0));
  const auto notes = run.close_notes();
  REQUIRE(notes.size() == 2);
  CHECK(notes[0].reason == "SIGTERM");
  CHECK(notes[1].reason == "end");
  const nlohmann::json expected[] = {{{"exit_code", 75}, {"steps", 3}, {"saves", 2}, {"lost_steps", 0}},
                                     {{"exit_code", 0}, {"steps", 2}, {"saves", 2}, {"lost_steps", 0}}};
  for (const int i : {0, 1}) {
    auto details = notes[static_cast<std::size_t>(i)].details;
    CHECK(details.at("seconds").get<double>() > 0);
    details.erase("seconds");
    CHECK(details == expected[i]);
  }
}

TEST_CASE("metrics_have_each_step_once_even_if_steps_were_repeated") {
  Run run;
  run.every = "4";
  const auto life = [&](int number, std::uint64_t dies_at) {
    return run.session([&](Session& session) {
      auto loader = batches();
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        if (number == 1 && batch.number() == 5) CHECK(run.metrics().size() == 4);  // saved metrics are not repeated
        session.log({{"life", number}});
        if (batch.number() == dies_at) throw std::runtime_error("an end without a save");
      }
      session.log({{"accuracy", 0.5}});
      return session.finish();
    });
  };
  CHECK_THROWS_AS(life(1, 6), std::runtime_error);
  CHECK(run.metrics().size() == 6);
  CHECK(life(2, 0) == kDone);
  const auto metrics = run.metrics();
  REQUIRE(metrics.size() == 10);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    CHECK(metrics[i].at("step") == i + 1);
    CHECK(metrics[i].at("life") == (i < 4 ? 1 : 2));
  }
  CHECK(metrics.back().at("accuracy") == 0.5);
}

TEST_CASE("training_continues_after_a_failed_save_and_the_exit_code_reports_it") {
  class NoSpace final : public ForwardingFiles {
   public:
    bool full = false;
    int allocate(int fd, std::uint64_t bytes) override { return full ? -ENOSPC : ForwardingFiles::allocate(fd, bytes); }
  } files;
  set_store_files(&files);
  Run run;
  run.every = "2";
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [&](std::uint64_t step) { files.full = step >= 3; });
  }) == kNotSaved);
  CHECK(sum == 45);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 2);
  CHECK(run.close_notes().front().details.at("lost_steps") == 3);
  files.full = false;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  CHECK(sum == 45);
  set_store_files(nullptr);
}

TEST_CASE("the_last_saved_step_is_reported_to_the_launcher") {
  Run run;
  run.every = "2";
  const std::string told = (run.folder / "progress").string();
  ::setenv("HOLDFAST_PROGRESS", told.c_str(), 1);
  double sum = 0;
  std::vector<std::string> seen;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [&](std::uint64_t) {
      std::string step = "-";
      std::ifstream(told) >> step;
      seen.push_back(step);
    });
  }) == kDone);
  ::unsetenv("HOLDFAST_PROGRESS");
  CHECK(seen == std::vector<std::string>{"-", "-", "2", "2", "4"});
  std::string step;
  std::ifstream(told) >> step;
  CHECK(step == "5");
}
