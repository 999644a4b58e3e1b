// What a session logs about its ranks: suspicious state, equal gradients, and the wait for a slow rank.
#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

// An object with its own generators.
struct Sampler {
  std::mt19937 alike{7}, own;
  at::Generator of_libtorch = at::make_generator<at::CPUGeneratorImpl>(7);
  template <class Archive>
  void holdfast_state(Archive& a) {
    a("alike", alike)("own", own)("of_libtorch", of_libtorch);
  }
};

}  // namespace

TEST_CASE("a_changed_learning_rate_is_reported_with_the_name_of_its_pipeline", "[full]") {
  const ScratchFolder folder;
  const auto train = [&](std::uint64_t steps) {
    return ranks::run_sessions(1,
                               [&folder, steps]() -> int {
                                 auto session = start(folder.path(), "two", "never", "cpu");
                                 torch::nn::Linear left(2, 1), right(2, 1);
                                 torch::optim::SGD of_left(left->parameters(), 0.1), of_right(right->parameters(), 0.1);
                                 auto one = session.pipeline("left", left, of_left, {holdfast::LrSchedule::cosine(10)});
                                 auto other = session.pipeline("right", right, of_right,
                                                               {holdfast::LrSchedule::cosine(10 * steps)});
                                 for (auto& step : session.steps({.count = steps})) {
                                   one.step(step, [&] { return left->forward(torch::ones({1, 2})).sum(); });
                                   other.step(step, [&] { return right->forward(torch::ones({1, 2})).sum(); });
                                 }
                                 return session.finish();
                               })[0]
        .text;
  };
  CHECK(train(1).find("cosine") == std::string::npos);
  const auto said = train(2);
  CAPTURE(said);
  CHECK(has_line_in_order(said, {"pipeline right", "learning rate", "cosine(10)", "cosine(20)"}));
  CHECK(said.find("pipeline left") == std::string::npos);
}

TEST_CASE("generators_with_equal_state_on_all_ranks_are_reported", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "run");
    std::mt19937 alike(7), own(static_cast<unsigned>(session.rank()));
    auto of_libtorch = at::make_generator<at::CPUGeneratorImpl>(7);
    double value = 7;
    Sampler sampler;
    sampler.own.seed(static_cast<unsigned>(session.rank()));
    session.track("alike", alike).track("own", own).track("of_libtorch", of_libtorch).track("value", value);
    session.track("sampler", sampler);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) continue;
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
  const std::string said = ended[0].text;
  INFO(said);
  CHECK(has_line(said, {"'alike'", "same", "all ranks"}));
  CHECK(has_line(said, {"'of_libtorch'", "same", "all ranks"}));
  CHECK_FALSE(has_line(said, {"'own'", "all ranks"}));
  CHECK(has_line(said, {"'sampler.alike'", "same", "all ranks"}));
  CHECK(has_line(said, {"'sampler.of_libtorch'", "same", "all ranks"}));
  CHECK_FALSE(has_line(said, {"'sampler.own'", "all ranks"}));
  CHECK_FALSE(has_line(said, {"'value'", "all ranks"}));
}

TEST_CASE("identical_gradients_on_all_ranks_are_reported", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "foreign");
    torch::nn::Linear net(2, 1);
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    session.track("net", net).track("optimizer", optimizer);
    for (auto& step : session.steps({.count = 5})) {
      optimizer.zero_grad();
      net->forward(torch::full({4, 2}, static_cast<double>(step.number()))).sum().backward();
      session.average_gradients(net);
      optimizer.step();
    }
    return session.finish();
  });
  CHECK(ended[0].code == 0);
  INFO(ended[0].text);
  CHECK(has_line(ended[0].text, {"same gradients", "holdfast::Loader", "session.rank()"}));
}

TEST_CASE("waiting_for_a_slow_rank_is_logged_once_by_one_rank", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(4, [&]() -> int {
    ::setenv("HOLDFAST_SAY_WAITING", "1s", 1);
    auto session = start(folder.path(), "slow");
    session.barrier();
    if (session.rank() == 0) ::usleep(2500000);
    session.barrier();
    return session.finish();
  });
  std::size_t said = 0;
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    said += count_lines(rank.text, {"rank_warnings_test.cc:"});
  }
  CHECK(said == 1);
  CHECK(has_line_in_order(ended[1].text, {"rank 1", "barrier", "rank_warnings_test.cc:", "rank 0", "after barrier",
                                          "rank_warnings_test.cc:"}));
}
