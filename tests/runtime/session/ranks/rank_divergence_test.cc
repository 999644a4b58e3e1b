// Ranks that diverge, throw or leave: all of them stop within seconds with an error that gives the reason.
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <stdexcept>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
namespace F = torch::nn::functional;
using namespace rank_session;

// Every rank failed soon, with a message that has `words` in this order.
void check_all_failed(const std::vector<ranks::Ended>& ended, const std::vector<std::string>& words) {
  for (std::size_t rank = 0; rank < ended.size(); ++rank) {
    INFO("rank " << rank << " ended with " << ended[rank].code << " after " << ended[rank].seconds
                 << " s and said: " << ended[rank].text);
    CHECK(ended[rank].code == 1);
    CHECK(ended[rank].seconds < 5);
    CHECK(has_line_in_order(ended[rank].text, words));
  }
}

}  // namespace

TEST_CASE("diverging_ranks_are_stopped_with_the_reason", "[full][alone]") {
  const ScratchFolder folder;
  struct Case {
    const char* name;
    std::function<int(Session&)> body;
    std::vector<std::string> words;
  };
  const auto train = [](Session& session, std::size_t samples, std::uint64_t epochs, bool average, double shift) {
    torch::nn::Linear net(2, 1);
    net->to(torch::kDouble);
    {
      const torch::NoGradGuard no_grad;
      net->bias.add_(shift);
    }
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    Loader loader(stacked(samples), {.batch_size = 8});
    session.track("net", net).track("optimizer", optimizer);
    for (auto& batch : session.steps(loader, {.epochs = epochs})) {
      optimizer.zero_grad();
      F::mse_loss(net->forward(batch.data), batch.target).backward();
      if (average) session.average_gradients(net);
      optimizer.step();
    }
    return session.finish();
  };
  const std::vector<Case> cases = {
      {"other epochs",
       [&](Session& s) { return train(s, 23, s.rank() == 1 ? 3 : 2, true, 0); },
       {"rank 1", "session.steps", "3 epochs", "rank_divergence_test.cc:", "rank 0", "session.steps", "2 epochs"}},
      {"unequal data",
       [&](Session& s) { return train(s, s.rank() == 3 ? 20 : 23, 2, true, 0); },
       {"rank 3", "session.steps", "2 epochs", "20 samples", "rank 0", "2 epochs", "23 samples"}},
      {"another layout of gradients",
       [&](Session& s) {
         torch::nn::Linear net(2, s.rank() == 1 ? 3 : 4);  // not tracked
         for (auto& step : s.steps({.count = 2})) {
           (void)step;
           net->forward(torch::ones({1, 2})).sum().backward();
           s.average_gradients(net);
         }
         return s.finish();
       },
       {"rank 1", "average_gradients", "2 parameters", "9 numbers", "layout ", "12 numbers"}},
      {"described by one",
       [&](Session& s) {
         if (s.rank() == 2) {
           (void)s.describe();
         } else {
           s.barrier();
         }
         return s.finish();
       },
       {"rank 2", "session.describe", "rank_divergence_test.cc:", "rank 0", "barrier", "rank_divergence_test.cc:"}},
      {"other parameters",
       [&](Session& s) { return train(s, 23, 2, true, s.rank() == 2 ? 1e-9 : 0); },
       {"net.bias", "values", "rank 2", "rank 0", "before", "first step"}},
      {"gradients are not averaged",
       [&](Session& s) { return train(s, 23, 2, false, 0); },
       {"values", "rank 1", "rank 0", "after", "first step", "session.average_gradients(net)"}},
      {"gradients of several batches are not averaged",
       [&](Session& s) {
         torch::nn::Linear net(2, 1);
         net->to(torch::kDouble);
         torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
         Loader loader(stacked(), {.batch_size = 8});
         s.track("net", net).track("optimizer", optimizer);
         for (auto& batch : s.steps(loader, {.epochs = 20})) {
           F::mse_loss(net->forward(batch.data), batch.target).backward();
           if (batch.number() % 3 != 0) continue;
           optimizer.step();
           optimizer.zero_grad();
         }
         return s.finish();
       },
       {"values", "rank 1", "rank 0", "after 4 steps", "session.average_gradients(net)"}},
      {"a pipeline without Ddp",
       [&](Session& s) {
         torch::nn::Linear net(2, 1);
         net->to(torch::kDouble);
         torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
         Loader loader(stacked(), {.batch_size = 4});
         auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
         for (auto& batch : s.steps(loader, {.epochs = 20})) {
           pipeline.step(batch, [&] { return F::mse_loss(net->forward(batch.data), batch.target); });
         }
         return s.finish();
       },
       {"values", "rank 1", "rank 0", "after 3 steps", "Ddp()"}},
      {"another tracked name",
       [&](Session& s) {
         double x = 0;
         auto y = torch::zeros({2});
         torch::nn::Linear net(2, 1);
         s.track("x", x);
         if (s.rank() == 1) s.track("net", net);
         s.restore();
         return s.finish();
       },
       {"net.bias", "tracked", "rank 1", "not", "rank 0"}},
      {"a batch for fewer ranks",
       [&](Session& s) {
         Loader loader(stacked(), {.batch_size = 3});
         for (auto& batch : s.steps(loader, {.epochs = 1})) (void)batch;
         return s.finish();
       },
       {"batch_size", "3", "4 ranks", "at least 4"}},
      {"throw in a step",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 1000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 2) throw std::runtime_error("the reactor is too hot");
         }
         return s.finish();
       },
       {"rank 2", "the reactor is too hot"}},
      {"exit in a step",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 100000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 1) std::exit(1);
         }
         return s.finish();
       },
       {}},
      {"return without finish",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 100000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 1) return 1;
         }
         return s.finish();
       },
       {}},
  };
  // Also by a program that has no Ddp any more since the version was saved.
  const auto epochs_of_pipeline = [&](bool with_ddp, std::uint64_t epochs) {
    return ranks::run_sessions(2, [&, with_ddp, epochs]() -> int {
      auto session = start(folder.path(), "lost");
      torch::nn::Linear net(2, 1);
      net->to(torch::kDouble);
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
      Loader loader(stacked(), {.batch_size = 4});
      std::vector<AnyStage> stages{Accumulate(3)};
      if (with_ddp) stages.insert(stages.begin(), Ddp());
      auto pipeline = session.pipeline(net, optimizer, stages);
      for (auto& batch : session.steps(loader, {.epochs = epochs})) {
        pipeline.step(batch, [&] { return F::mse_loss(net->forward(batch.data), batch.target); });
      }
      return session.finish();
    });
  };
  for (const auto& rank : epochs_of_pipeline(true, 1)) CHECK(rank.code == 0);
  const auto lost = epochs_of_pipeline(false, 4);
  check_all_failed(lost, {"values", "rank 1", "rank 0", "after 3 steps"});
  CHECK(has_line(lost[0].text, {"stage ddp", "checkpoint", "not in the pipeline"}));

  int number = 0;
  for (const Case& one : cases) {
    INFO(one.name);
    ++number;
    const auto ended = ranks::run_sessions(
        4,
        [&]() -> int {
          auto session = start(folder.path(), "case" + std::to_string(number));
          ranks::note_fact();
          return one.body(session);
        },
        std::chrono::seconds(20));
    const bool throws = std::string(one.name) == "throw in a step";
    const bool leaves = std::string(one.name).find("exit") == 0 || std::string(one.name).find("return") == 0;
    if (throws) {
      CHECK(ended[2].code == -SIGABRT);
      for (const std::size_t rank : {0, 1, 3}) {
        INFO("rank " << rank << ": " << ended[rank].text);
        CHECK(ended[rank].code == 1);
        CHECK(has_line_in_order(ended[rank].text, one.words));
        CHECK(ended[rank].seconds < 5);
      }
    } else if (leaves) {
      for (const std::size_t rank : {0, 2, 3}) {
        INFO("rank " << rank << ": " << ended[rank].text);
        CHECK(ended[rank].code == 1);
        CHECK(has_line(ended[rank].text, {"rank 1", "session.finish()"}));
        CHECK(ended[rank].seconds < 5);
      }
    } else {
      check_all_failed(ended, one.words);
    }
    double slowest = 0;
    for (const auto& rank : ended) slowest = std::max(slowest, rank.seconds);
    std::cout << "fault: " << one.name << ", all ranks over after seconds=" << slowest << "\n";
  }
}

TEST_CASE("epochs_over_the_programs_own_batches_need_the_same_number_on_each_rank", "[full]") {
  const ScratchFolder folder;
  for (const bool alike : {true, false}) {
    const auto ended = ranks::run_sessions(2, [&]() -> int {
      auto session = start(folder.path(), alike ? "alike" : "other");
      std::vector<double> batches(static_cast<std::size_t>(3 + (alike ? 0 : session.rank())), 1.0 + session.rank());
      double sum = 0;
      session.track("sum", sum);
      for (auto& epoch : session.epochs({.count = 2}, batches)) {
        for (const double batch : epoch) sum += batch;
      }
      return sum == 6.0 * (1 + session.rank()) ? session.finish() : 5;
    });
    for (const auto& rank : ended) {
      INFO(rank.text);
      CHECK((rank.code == 0) == alike);
      if (!alike) CHECK(has_line_in_order(rank.text, {"rank 1", "4 batches", "rank 0", "3 batches"}));
    }
  }
}
