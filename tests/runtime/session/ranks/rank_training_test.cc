// Several ranks train as one: the weights and the samples equal those of one rank.
#include <fmt/format.h>
#include <torch/torch.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <set>
#include <sstream>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

std::array<double, 3> weights_in(const std::string& text) {
  std::array<double, 3> weights{};
  const auto line = text.rfind('\n', text.size() - 2);
  std::istringstream words(text.substr(0, line == std::string::npos ? 0 : std::string::npos));
  std::string one;
  for (std::istringstream lines(text); std::getline(lines, one);) {
    double a = 0, b = 0, c = 0;
    if (std::sscanf(one.c_str(), "%lf %lf %lf", &a, &b, &c) == 3) weights = {a, b, c};
  }
  return weights;
}

void ranks_train_as_one(const std::vector<int>& counts, const char* device) {
  const ScratchFolder folder;
  std::array<double, 3> one{};
  for (const int count : counts) {
    const auto ended =
        ranks::run_sessions(count, [&] { return train_line(folder.path(), "line" + std::to_string(count), device); });
    for (const auto& rank : ended) {
      INFO(count << " ranks: " << rank.text);
      CHECK(rank.code == 0);
      const auto weights = weights_in(rank.text);
      if (count == 1) one = weights;
      REQUIRE(weights[0] != 0);
      for (int i = 0; i < 3; ++i) CHECK(std::abs(weights[i] - one[i]) < 1e-12);
    }
  }
}

// Ranks that average their gradients themselves, and add an element to a parameter at every second step. Prints the
// result, which is the same with and without a stop, on every rank.
std::string grown(const ScratchFolder& folder, const std::string& run, std::uint64_t stop_at) {
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), run);
    torch::Tensor x = torch::ones({2}, torch::requires_grad());
    torch::optim::Adam optimizer({x}, 0.1);
    session.track("x", x, resizable).track("optimizer", optimizer);
    for (auto& step : session.steps({.count = 6})) {
      optimizer.zero_grad();
      ((x - 3).square().sum() * (1.0 + session.rank())).backward();
      x.mutable_grad() = session.mean(x.grad());
      optimizer.step();
      if (step.number() % 2 == 1) {  // another tensor, with the moments of the old one
        const auto one_more = [](const torch::Tensor& of) { return torch::cat({of, torch::zeros({1})}); };
        auto state = std::move(optimizer.state().at(x.unsafeGetTensorImpl()));
        optimizer.state().erase(x.unsafeGetTensorImpl());
        auto& moments = static_cast<torch::optim::AdamParamState&>(*state);
        moments.exp_avg(one_more(moments.exp_avg()));
        moments.exp_avg_sq(one_more(moments.exp_avg_sq()));
        x = one_more(x.detach()).requires_grad_();
        optimizer.param_groups()[0].params()[0] = x;
        optimizer.state()[x.unsafeGetTensorImpl()] = std::move(state);
      }
      if (step.number() + 1 == stop_at) session.stop("enough");
    }
    std::string values;
    for (const double value : values_of(x.detach())) values += fmt::format(" {:.9g}", value);
    std::printf("came to%s\n", values.c_str());
    return session.finish();
  });
  std::set<std::string> all;
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK((rank.code == 0 || rank.code == 75));
    const auto at = rank.text.find("came to");
    REQUIRE(at != std::string::npos);
    all.insert(rank.text.substr(at, rank.text.find('\n', at) - at));
  }
  CHECK(all.size() == 1);
  return *all.begin();
}

}  // namespace

TEST_CASE("ranks_train_like_one_even_with_uneven_batches", "[full]") { ranks_train_as_one({1, 2, 3, 4}, "cpu"); }

TEST_CASE("gpus_train_like_one_even_with_uneven_batches", "[gpu]") {
  if (ranks::are_on_two_gpus()) ranks_train_as_one({1, 2}, "cuda");
}

TEST_CASE("all_ranks_together_see_each_sample_once", "[full]") {
  const ScratchFolder folder;
  for (const int count : {1, 3, 4}) {
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "samples" + std::to_string(count));
      Loader loader(stacked(), {.batch_size = 5, .workers = 2});
      std::vector<int> seen, evaluated;
      double weights = 0;
      int steps = 0;
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        weights += batch.weight();
        ++steps;
        if (batch.weight() == 0) continue;
        for (const double x : values_of(batch.data.select(1, 0))) seen.push_back(static_cast<int>(std::lround(x * 10)));
        // The position stays that of the loop while an evaluation iterates over the same data.
        if (steps == 2) {
          for (auto& part : session.evaluate(loader)) {
            for (const double x : values_of(part.data.select(1, 0))) {
              evaluated.push_back(static_cast<int>(std::lround(x * 10)));
            }
          }
        }
      }
      std::multiset<int> all, expected;
      for (const auto& one : session.all_gather(seen)) all.insert(one.begin(), one.end());
      std::vector<int> in_order = session.gather_in_order(evaluated), numbers;
      for (int i = 0; i < 23; ++i) {
        numbers.push_back(i);
        expected.insert(i);
        expected.insert(i);
      }
      if (all != expected) std::printf("wrong samples\n");
      if (in_order != numbers) std::printf("wrong evaluation\n");
      if (std::abs(session.sum(weights) - steps * count) > 1e-12) std::printf("wrong weights\n");
      return session.finish();
    });
    for (const auto& rank : ended) {
      INFO(count << " ranks: " << rank.text);
      CHECK(rank.code == 0);
      CHECK(rank.text.find("wrong") == std::string::npos);
    }
  }
}

TEST_CASE("collectives_accept_tensors", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "tensors", "never", "cpu");
    const auto mine = torch::full({2}, session.rank() + 1.0, torch::requires_grad());
    for (const auto& all : {session.sum(mine), session.mean(mine), session.min(mine), session.max(mine),
                            session.broadcast(mine, 1), mine.detach()}) {
      std::printf("%g ", values_of(all)[1]);
    }
    const auto net = std::make_shared<torch::nn::LinearImpl>(2, 1);
    net->forward(mine).backward();
    session.average_gradients(net);
    std::printf("%g\n", values_of(net->weight.grad())[1]);
    return session.finish();
  });
  for (const std::size_t rank : {0, 1}) {
    CAPTURE(ended[rank].text);
    CHECK(ended[rank].text.find(rank == 0 ? "3 1.5 1 2 2 1 1.5\n" : "3 1.5 1 2 2 2 1.5\n") != std::string::npos);
  }
}

TEST_CASE("growing_parameters_on_several_ranks_resume_exactly", "[full]") {
  const ScratchFolder folder;
  const std::string undisturbed = grown(folder, "undisturbed", 0);
  for (const std::uint64_t stop_at : {2, 3, 5}) {
    const std::string run = fmt::format("stopped_at_{}", stop_at);
    (void)grown(folder, run, stop_at);
    CHECK(grown(folder, run, 0) == undisturbed);
  }
}
