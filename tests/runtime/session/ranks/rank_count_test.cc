// A run continues on another number of ranks.
#include <ATen/Parallel.h>
#include <signal.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <sstream>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

}  // namespace

TEST_CASE("a_run_on_another_number_of_ranks_continues_with_the_same_samples", "[full]") {
  const ScratchFolder folder;
  std::map<int, int> seen;
  int turn = 0;
  for (const int count : {4, 2, 3, 1, 4}) {
    ++turn;
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "elastic", "1");
      Loader loader(stacked(), {.batch_size = 6});
      std::mt19937 own(static_cast<unsigned>(session.rank()));
      session.track("own", own);
      int steps = 0;
      for (auto& batch : session.steps(loader, {.epochs = 5})) {
        (void)own();
        if (batch.weight() > 0) {
          for (const double x : values_of(batch.data.select(1, 0))) {
            std::printf("sample %d\n", static_cast<int>(std::lround(x * 10)));
          }
        }
        if (++steps == 4) ::raise(SIGTERM);
      }
      return session.finish();
    });
    for (std::size_t rank = 0; rank < ended.size(); ++rank) {
      INFO("turn " << turn << ", rank " << rank << " of " << count << ": " << ended[rank].text);
      CHECK((ended[rank].code == 75 || ended[rank].code == 0));
      std::istringstream lines(ended[rank].text);
      for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("sample ")) ++seen[std::stoi(line.substr(7))];
      }
    }
    if (turn > 1) CHECK(has_line(ended[0].text, {"sample-exact", "not bit-exact"}));
    if (turn == 2) CHECK(has_line(ended[0].text, {"4 ranks → 2"}));
  }
  // Until all epochs are finished.
  const auto last = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "elastic", "1");
    Loader loader(stacked(), {.batch_size = 6});
    std::mt19937 own;
    session.track("own", own);
    for (auto& batch : session.steps(loader, {.epochs = 5})) {
      for (const double x : values_of(batch.data.select(1, 0))) {
        std::printf("sample %d\n", static_cast<int>(std::lround(x * 10)));
      }
    }
    return session.finish();
  });
  for (const auto& rank : last) {
    CHECK(rank.code == 0);
    std::istringstream lines(rank.text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("sample ")) ++seen[std::stoi(line.substr(7))];
    }
  }
  REQUIRE(seen.size() == 23);
  for (const auto& [sample, times] : seen) {
    INFO("sample " << sample);
    CHECK(times == 5);
  }
}

TEST_CASE("another_number_of_ranks_does_not_restore_the_number_of_threads", "[full]") {
  const ScratchFolder folder;
  const auto threads = [&](std::size_t count, std::uint64_t steps, int set) {
    return ranks::run_sessions(count,
                               [&folder, steps, set]() -> int {
                                 auto session = start(folder.path(), "threads", "never", "cpu");
                                 if (set > 0) at::set_num_threads(set);
                                 std::uint64_t done = 0;
                                 session.track("done", done);
                                 for (auto& step : session.steps({.count = steps})) done = step.number();
                                 std::printf("with %d threads\n", at::get_num_threads());
                                 return session.finish();
                               })[0]
        .text;
  };
  CHECK(threads(1, 1, 7).find("with 7 threads") != std::string::npos);
  CHECK(threads(1, 2, 0).find("with 7 threads") != std::string::npos);
  CHECK(threads(2, 3, 0).find("with 7 threads") == std::string::npos);
}

TEST_CASE("a_counted_loop_on_another_number_of_ranks_is_not_called_sample_exact", "[full]") {
  const ScratchFolder folder;
  const auto life = [&](int ranks, std::uint64_t count) {
    return ranks::run_sessions(ranks, [&]() -> int {
      auto session = start(folder.path(), "counted");
      double sum = 0;
      session.track("sum", sum);
      for ([[maybe_unused]] auto& step : session.steps({.count = count})) sum += 1;
      return session.finish();
    });
  };
  CHECK(life(2, 2)[0].code == 0);
  const auto ended = life(1, 3);
  INFO(ended[0].text);
  CHECK(ended[0].code == 0);
  CHECK(has_line(ended[0].text, {"2 ranks → 1"}));
  CHECK(ended[0].text.find("sample-exact") == std::string::npos);
}
