// Which version a start continues from, and when it refuses to start: fresh starts, rewinds, takeovers.
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"
#include "storage/scratch_folder.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;
using storage::StatusCode;

}  // namespace

TEST_CASE("an_incompatible_checkpoint_is_refused_before_anything_changes") {
  const Run run;
  double sum = 0, former = 1, other = 7;
  const auto program = [&](Session& session, std::uint64_t epochs) {
    session.track("former", former);
    return sum_samples(session, epochs, sum);
  };
  run.session([&](Session& s) { return program(s, 1); });
  sum = -1;
  std::string said;
  run.session([&](Session& session) {
    session.track("sum", sum).track("other", other);
    try {
      session.restore();
    } catch (const Error& error) {
      CHECK(error.code() == StatusCode::misfit);
      said = error.what();
    }
  });
  CHECK(said.find("former") != std::string::npos);
  CHECK(said.find("other") != std::string::npos);
  CHECK(sum == -1);
  CHECK(other == 7);
  CHECK(run.history().opens().size() == 1);  // the run was not taken over
  CHECK(run.session([&](Session& s) { return program(s, 2); }) == kDone);
  CHECK(sum == 90);
  auto loose = run.options();
  loose.allow_missing = {"other"};
  loose.allow_unexpected = {"former"};
  sum = -1;
  run.session(
      [&](Session& session) {
        session.track("sum", sum).track("other", other);
        CHECK(session.restore());
      },
      loose);
  CHECK(sum == 90);
  CHECK(other == 7);
}

TEST_CASE("a_run_with_versions_starts_from_scratch_only_if_asked") {
  Run run;
  run.every = "2";
  auto given = run.options();
  given.keep = 0;
  Noted noted;
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  noted.steps.clear();
  SECTION("none of them loads") {
    for (const auto& payload : boost::filesystem::directory_iterator(run.folder / "run" / "data")) {
      boost::filesystem::resize_file(payload, 100);
    }
    const Error refusal = refusal_of([&] { run.session(noted.stopping_at(0), given); });
    INFO(refusal.what());
    CHECK(refusal.code() == StatusCode::corrupt);
    CHECK(has_line(refusal.what(), {"--holdfast.from", "--holdfast.fresh"}));
    const auto versions = run.history().versions();
    for (const auto& version : versions) CHECK(has_line(refusal.what(), {version.uid.short_text()}));
    CHECK(noted.steps.empty());
    CHECK(run.history().opens().size() == 1);
  }
  auto fresh = given;
  fresh.fresh = true;
  noted.sum = 0;
  CHECK(run.session(noted.stopping_at(3), fresh) == kRunAgain);
  CHECK(run.session(noted.stopping_at(0), given) == kDone);  // continues from the new beginning
  CHECK(noted.steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5});
  CHECK(noted.sum == 45);
  CHECK(run.history().versions().size() == 7);  // three from before; 2, 3; 4, 5
}

TEST_CASE("a_rewind_continues_from_the_chosen_version_and_so_do_later_starts") {
  Run run;
  run.every = "2";
  auto given = run.options();
  given.keep = 0;
  Noted noted;
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  noted.steps.clear();
  auto rewound = given;
  rewound.from = std::to_string(run.versions().front().uid.seq);
  SECTION("after a save of its own") { CHECK(run.session(noted.stopping_at(3), rewound) == kRunAgain); }
  SECTION("before it") {
    run.session(
        [&](Session& session) {
          session.track("sum", noted.sum);
          CHECK(session.restore());
          CHECK(session.step() == 2);
        },
        rewound);
    noted.sum = 0;
    CHECK(run.session(noted.stopping_at(3), given) == kRunAgain);
  }
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  CHECK(noted.steps == std::vector<std::uint64_t>{3, 4, 5});
  CHECK(noted.sum == 45);
}

// The session that loses its run is another process, which waits inside its third step during the takeover.
TEST_CASE("a_session_whose_run_was_taken_over_stops_with_its_own_exit_code", "[full]") {
  Run run;
  run.every = "2";
  int there[2], go_on[2];
  REQUIRE(::pipe(there) == 0);
  REQUIRE(::pipe(go_on) == 0);
  char byte = 0;
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    double sum = 0;
    std::uint64_t last = 0;
    const int code = run.session([&](Session& session) {
      return sum_samples(session, 2, sum, [&](std::uint64_t step) {
        last = step;
        if (step == 3 && (::write(there[1], &byte, 1) != 1 || ::read(go_on[0], &byte, 1) != 1)) ::_exit(2);
      });
    });
    ::_exit(last == 4 ? code : 3);
  }
  REQUIRE(::read(there[0], &byte, 1) == 1);
  double sum = 0, theirs = 0;
  const auto other = [&](Session& session) { return sum_samples(session, 2, theirs); };
  CHECK(refusal_of([&] { run.session(other); }).code() == StatusCode::busy);  // the run has a living session
  auto takeover = run.options();
  takeover.take_over = true;
  CHECK(run.session(other, takeover) == kDone);
  CHECK(theirs == 90);
  REQUIRE(::write(go_on[1], &byte, 1) == 1);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == kSuperseded);
  CHECK(run.close_notes().size() == 1);
  CHECK(run.session([&](Session& session) { return sum_samples(session, 2, sum); }) == kDone);
  CHECK(sum == 90);
}

TEST_CASE("a_relative_folder_of_runs_is_resolved_when_the_session_starts") {
  const ScratchFolder folder;
  boost::filesystem::create_directories(folder.path() / "elsewhere");
  const auto here = boost::filesystem::current_path();
  boost::filesystem::current_path(folder.path());
  const auto life = [](std::uint64_t count) {
    auto session = Session::start({.dir = "runs", .run = "relative"});
    double sum = 0;
    session.track("sum", sum);
    boost::filesystem::current_path("elsewhere");
    for ([[maybe_unused]] auto& step : session.steps({.count = count})) sum += 1;
    boost::filesystem::current_path("..");
    CHECK(session.finish() == kDone);
    return sum;
  };
  CHECK(life(2) == 2);
  CHECK(life(3) == 3);
  boost::filesystem::current_path(here);
  CHECK(boost::filesystem::exists(folder.path() / "runs/relative"));
  CHECK_FALSE(boost::filesystem::exists(folder.path() / "elsewhere/runs"));
}

TEST_CASE("a_restarted_job_starts_from_scratch_once_and_a_manual_start_says_how_to_continue") {
  const Run run;
  auto fresh = run.options();
  fresh.fresh = true;
  Noted noted;
  CHECK(run.session(noted.stopping_at(2)) == kRunAgain);
  ::setenv("SLURM_JOB_ID", "71", 1);
  noted.sum = 0;
  noted.steps.clear();
  CHECK(run.session(noted.stopping_at(3), fresh) == kRunAgain);
  CHECK(run.session(noted.stopping_at(0), fresh) == kDone);
  ::unsetenv("SLURM_JOB_ID");
  CHECK(noted.steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5});
  CHECK(noted.sum == 45);
  CHECK_FALSE(has_line(run.said(), {"without --holdfast.fresh"}));
  CHECK(run.session(noted.stopping_at(2), fresh) == kRunAgain);
  CHECK(has_line(run.said(), {"step 2", "without --holdfast.fresh"}));
}
