// Several ranks act at the same step: they stop, save and log together, and survive a pause of all of them.
#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <set>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

}  // namespace

TEST_CASE("a_stop_signal_to_one_rank_stops_all_ranks_at_the_same_step", "[full]") {
  const ScratchFolder folder;
  for (const int asked : {0, 2}) {
    const auto ended = ranks::run_sessions(3, [&]() -> int {
      auto session = start(folder.path(), "signal" + std::to_string(asked));
      std::uint64_t last = 0;
      for (auto& step : session.steps({.count = 100000})) {
        last = step.number();
        ::usleep(static_cast<unsigned>(2000 + 500 * session.rank()));
        if (step.number() == 40 && session.rank() == asked) ::raise(SIGTERM);
      }
      std::printf("last step %llu\n", static_cast<unsigned long long>(last));
      return session.finish();
    });
    std::set<std::string> lasts;
    for (const auto& rank : ended) {
      INFO("asked " << asked << ": " << rank.text);
      CHECK(rank.code == 75);
      CHECK(rank.seconds < 10);
      const auto at = rank.text.find("last step ");
      REQUIRE(at != std::string::npos);
      lasts.insert(rank.text.substr(at, rank.text.find('\n', at) - at));
    }
    CHECK(lasts.size() == 1);
  }
}

TEST_CASE("ranks_save_together_at_times_measured_by_rank_0", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(3, [&]() -> int {
    auto session = start(folder.path(), "timed", "500ms");
    double mine = session.rank();
    session.track("mine", mine);
    for (auto& step : session.steps({.count = 300})) {
      (void)step;
      ::usleep(5000);
      mine += 1;
    }
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
  std::size_t saves = 0;
  for (auto at = ended[0].text.find("saved version"); at != std::string::npos;
       at = ended[0].text.find("saved version", at + 1)) {
    ++saves;
  }
  INFO(ended[0].text);
  CHECK(saves >= 2);
  CHECK(static_cast<double>(saves) <= ended[0].seconds / 0.5 + 1);
  CHECK(ended[1].text.empty());  // only one rank prints
}

TEST_CASE("invalid_metrics_are_refused_on_the_rank_that_logs_them", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "logged");
    double sum = 0;
    session.track("sum", sum);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
      const nlohmann::json good = {{"loss", 1.0}}, bad = {{"step", 1.0}};  // a name that log writes itself
      try {
        session.log(session.rank() == 1 ? bad : good);
        if (session.rank() == 1) return 5;
      } catch (const Error&) {
        if (session.rank() == 0) return 6;
      }
    }
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
}

// For example a laptop that sleeps, or a virtual machine that is moved.
TEST_CASE("ranks_that_were_all_suspended_continue", "[full][alone]") {
  const ScratchFolder folder;
  const auto to_all = [](const std::vector<pid_t>& pids, int signal) {
    for (const pid_t pid : pids) ::kill(pid, signal);
  };
  const auto ended = ranks::run_sessions(
      3,
      [&]() -> int {
        auto session = start(folder.path(), "asleep");
        torch::nn::Linear net(2, 1);
        torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
        auto pipeline = session.pipeline(net, optimizer, {Ddp()});
        for (auto& step : session.steps({.count = 300})) {
          pipeline.step(step, [&] { return net->forward(torch::ones({2, 2})).square().mean(); });
          ::usleep(10000);
        }
        return session.finish();
      },
      std::chrono::seconds(60),
      [&](const std::vector<pid_t>& pids) {
        ::usleep(2000000);
        to_all(pids, SIGSTOP);
        ::usleep(5000000);
        to_all(pids, SIGCONT);
      });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}
