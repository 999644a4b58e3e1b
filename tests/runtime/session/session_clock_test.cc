// A session stops by itself before its machine's time is over.
#include <torch/torch.h>

#include <chrono>
#include <cstdint>
#include <set>
#include <thread>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "ranks.h"
#include "session/ranks/rank_session.h"
#include "session_run.h"

namespace {

using namespace holdfast;
using std::chrono::milliseconds;

// Counts to 60 in steps of 20 ms.
int count_slowly(Session& session, std::uint64_t& sum) {
  session.track("sum", sum);
  for (auto& step : session.steps({.count = 60})) {
    sum += step.number();
    std::this_thread::sleep_for(milliseconds(20));
  }
  return session.finish();
}

}  // namespace

TEST_CASE("a_run_is_saved_before_its_time_is_over_and_the_same_command_continues") {
  const Run run;
  std::uint64_t sum = 0;
  SessionOptions options = run.options();
  options.time_limit = milliseconds(800);
  options.time_margin = milliseconds(400);
  CHECK(run.session([&](Session& s) { return count_slowly(s, sum); }, options) == kRunAgain);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step < 60);
  CHECK(run.said().find("800 ms left (time limit of 800 ms)") != std::string::npos);
  CHECK(run.said().find("(time limit of 800 ms), saved as version") != std::string::npos);

  options.time_limit = "0s";
  sum = 0;
  CHECK(run.session([&](Session& s) { return count_slowly(s, sum); }, options) == kDone);
  CHECK(sum == 60 * 61 / 2);
}

TEST_CASE("a_run_that_ends_before_its_time_limit_is_complete") {
  const Run run;
  std::uint64_t sum = 0;
  SessionOptions options = run.options();
  options.time_limit = "1h";
  CHECK(run.session([&](Session& s) { return count_slowly(s, sum); }, options) == kDone);
}

TEST_CASE("a_stopped_batch_run_on_kaggle_ends_with_0_because_kaggle_keeps_nothing_of_a_failed_one") {
  const Run run;
  SessionOptions options = run.options();
  const auto stop_at_3 = [](Session& session) {
    for (auto& step : session.steps({.count = 10})) {
      if (step.number() == 3) session.stop("enough");
    }
    return session.finish();
  };
  options.platform = "kaggle-batch";
  CHECK(run.session(stop_at_3, options) == kDone);
  CHECK(run.said().find("exit code 0, because Kaggle") != std::string::npos);
  CHECK(run.said().find("run run on Kaggle, Save Version: cpu") != std::string::npos);
  REQUIRE(run.versions().size() == 1);
  options.platform = "kaggle";
  options.run = "interactive";
  CHECK(run.session(stop_at_3, options) == kRunAgain);
}

TEST_CASE("rank_0s_time_stops_all_ranks_at_the_same_step", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    std::string program = "test", dir = "--holdfast.dir=" + folder.path().string();
    char* arguments[] = {program.data(), dir.data(), nullptr};
    char** argv = arguments;
    int argc = 2;
    SessionOptions options{.run = "clock", .seed = 5, .every = "never", .device = "cpu"};
    options.time_limit = "4s";
    options.time_margin = "1500ms";
    auto session = Session::start(argc, argv, options);
    std::uint64_t last = 0;
    for (auto& step : session.steps({.count = 100000})) {
      last = step.number();
      std::this_thread::sleep_for(milliseconds(2 + session.rank()));
    }
    std::printf("last step %llu\n", static_cast<unsigned long long>(last));
    return session.finish();
  });
  std::set<std::string> lasts;
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 75);
    CHECK(rank.seconds < 10);
    const auto at = rank.text.find("last step ");
    REQUIRE(at != std::string::npos);
    lasts.insert(rank.text.substr(at, rank.text.find('\n', at) - at));
  }
  CHECK(lasts.size() == 1);
}
