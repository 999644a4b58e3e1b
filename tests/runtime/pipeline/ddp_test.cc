// The Ddp stage: buckets of gradients, buffers of rank 0, parameters that some ranks or steps do not use.
#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <stdexcept>

#include "holdfast/holdfast.h"
#include "pipeline/small_net.h"
#include "ranks.h"

using namespace holdfast;
using namespace small_net;

namespace F = torch::nn::functional;

TEST_CASE("rank_0s_buffers_reach_every_rank_whatever_their_dtype", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    struct Buffers : torch::nn::Module {
      torch::Tensor w = register_parameter("w", torch::ones({2}));
    } net;
    std::vector<torch::Tensor> expected;
    for (const auto dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kBool, at::kByte, at::kShort,
                             at::kInt, at::kLong, at::kComplexFloat, at::kComplexDouble}) {
      expected.push_back((torch::arange(6) % (dtype == at::kBool ? 2 : 6)).view({2, 3}).to(dtype));
      const auto mine = group.is_main() ? expected.back().clone() : torch::zeros_like(expected.back());
      net.register_buffer(fmt::format("dtype{}", expected.size()), mine);
    }
    expected.push_back(torch::arange(6.).view({2, 3}).t());  // in another memory order, of one element, of none
    net.register_buffer("turned", (torch::arange(6.).view({2, 3}) * (1 - group.rank())).t());
    expected.push_back(torch::tensor(3));
    net.register_buffer("count", torch::tensor(3 - group.rank()));
    expected.push_back(torch::empty({0, 2}));
    net.register_buffer("none", expected.back());
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
    Pipeline pipeline(StageContext{"test", group, c10::kCPU, net, optimizer, {{"w", net.w}}}, {Ddp(), Accumulate(2)});
    StepFacts facts;
    facts.steps_left = 10;
    const auto step = [&] { pipeline.step(StepInfo(facts), [&] { return net.w.sum(); }); };
    step();
    const auto buffers = net.buffers();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (!buffers[i].equal(expected[i])) return fmt::format("wrong: {}", c10::toString(expected[i].scalar_type()));
    }
    // Buffers are exchanged only at a window's start, and only in training.
    auto count = net.named_buffers()["count"];
    const auto after_step = [&] {
      step();
      return count.item<int>();
    };
    count.fill_(group.rank());
    if (after_step() != group.rank()) return "a window's second batch";
    if (after_step() != 0) return "a window's first batch";
    step();
    count.fill_(group.rank());
    net.eval();
    if (after_step() != group.rank()) return "evaluation";
    return "right";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("a_resumed_run_averages_in_the_same_buckets_and_reports_changed_ones", "[full]") {
  // With three ranks the last bits of a sum depend on the gradient's place in its bucket.
  const auto ended = ranks::run(3, [](Group& group) -> std::string {
    struct Crossed : torch::nn::Module {  // the order of gradients differs from that of the parameters
      std::vector<torch::Tensor> parts;
      Crossed() {
        for (int i = 0; i < 8; ++i)
          parts.push_back(register_parameter(fmt::format("w{}", i), torch::zeros({50 + 7 * i})));
      }
      torch::Tensor forward(int step, int rank) {
        torch::Tensor x = torch::ones({1});
        for (const int i : {3, 6, 0, 5, 1, 7, 2, 4}) {
          const auto n = torch::arange(parts[static_cast<std::size_t>(i)].numel());
          const auto wave = torch::sin(n * 1.3 + 3 * step + 7 * rank);
          x = x + torch::tanh(0.1 * (parts[static_cast<std::size_t>(i)] * wave).sum());
        }
        return x.sum();
      }
    };
    std::vector<std::string> lines;
    const auto train = [&](bool in_two) {
      Crossed net;
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1));
      StageContext context{"test",    group, c10::kCPU, net,
                           optimizer, {},    {},        [&](const auto& line) { lines.push_back(line); }};
      for (const auto& one : net.named_parameters()) context.parameters.push_back({one.key(), one.value()});
      const auto make = [&](std::int64_t bucket_bytes) {
        return std::make_unique<Pipeline>(
            context, std::vector<AnyStage>{Ddp({.bucket_bytes = bucket_bytes, .first_bucket_bytes = 400})});
      };
      auto pipeline = make(1200);
      for (int i = 0; i < 6; ++i) {
        if (in_two && i == 3) {
          State state;
          pipeline->save(state);
          make(2400)->load(state);
          pipeline = make(1200);
          pipeline->load(state);
        }
        pipeline->step(StepInfo(StepFacts()), [&] { return net.forward(i, group.rank()); });
      }
      return flat(net.parameters());
    };
    const auto whole = train(false);
    if (!train(true).equal(whole)) return "other sums";
    if (lines.size() != 1 || lines[0].find("averaged in other buckets") == std::string::npos) return "not logged once";
    return "right";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("parameters_may_be_frozen_and_unfrozen_after_the_pipeline_was_created", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    const auto train = [](Group& ranks_of) {
      Net net = make_net();
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
      Pipeline pipeline(context_of(ranks_of, net, optimizer), {Ddp({.find_unused = true})});
      Loader loader(points(), {.batch_size = 8, .seed = 3});
      loader.shard(ranks_of.rank(), ranks_of.world_size());
      const auto weight = net->first->weight.clone();
      for (int i = 0; i < 4; ++i) {
        for (auto& parameter : net->first->parameters()) parameter.requires_grad_(i % 3 == 2);
        const auto batch = *loader.next();
        pipeline.step(StepInfo(step_facts(loader, 1)),
                      [&] { return F::cross_entropy(net->forward(batch.data), batch.target); });
        if (net->first->weight.equal(weight) != (i < 2))
          throw std::runtime_error("frozen ones moved, or others did not");
      }
      return flat(net->parameters());
    };
    Group alone(RankEnvironment{}, c10::kCPU);
    const double apart = distance(train(group), train(alone));
    return apart < 1e-6 ? "right" : fmt::format("{} apart", apart);
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("bucket_layouts_hold_every_parameter_once_last_ones_first") {
  std::vector<torch::Tensor> parameters;
  for (const int size : {10, 1000, 3, 500, 20}) parameters.push_back(torch::zeros({size}));
  parameters.push_back(torch::zeros({4}, torch::kDouble));
  const auto layout = holdfast::detail::bucket_layout(parameters, {.first = 64, .most = 3000, .least = 3000});
  CHECK(layout == std::vector<std::vector<std::size_t>>{{4}, {3, 2, 1}, {0}, {5}});
}

TEST_CASE("automatic_buckets_become_smaller_towards_the_end_of_the_backward_pass") {
  // 16 parameters of 40 bytes: after the first bucket, up to 160 bytes, then at most half of what is left, at least 40
  const std::vector<torch::Tensor> parameters(16, torch::zeros({10}));
  const auto layout = holdfast::detail::bucket_layout(parameters, {.first = 40, .most = 160, .least = 40});
  CHECK(layout ==
        std::vector<std::vector<std::size_t>>{{15}, {14, 13, 12, 11}, {10, 9, 8, 7}, {6, 5, 4, 3}, {2, 1}, {0}});

  constexpr std::int64_t mb = std::int64_t{1} << 20;
  const auto of_small = holdfast::detail::automatic_bucket_limits(30 * mb, mb).front();
  const auto of_large = holdfast::detail::automatic_bucket_limits(3000 * mb, mb).front();
  CHECK((of_small.first == mb && of_small.most == 25 * mb && of_small.least == 25 * mb));
  CHECK((of_large.first == mb && of_large.most == 200 * mb && of_large.least == 25 * mb));
}

TEST_CASE("a_resumed_run_keeps_the_buckets_that_an_earlier_version_chose") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    struct Large : torch::nn::Module {
      Large() {
        for (int i = 0; i < 20; ++i) register_parameter(fmt::format("w{}", i), torch::empty({9 << 18}));  // 9 MB each
      }
    } net;
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1));
    std::vector<std::string> lines;
    StageContext context{"test",    group, c10::kCPU, net,
                         optimizer, {},    {},        [&](const auto& line) { lines.push_back(line); }};
    for (const auto& one : net.named_parameters()) context.parameters.push_back({one.key(), one.value()});
    const auto layout_after = [&](const char* saved) {
      Ddp ddp;
      ddp.attach(context);
      State before, after;
      if (saved != nullptr) {
        before.put("layout", std::string(saved));
        ddp.load(before);
      }
      ddp.save(after);
      return after.get<std::string>("layout");
    };
    // one parameter, and then 4 a bucket, because a sixth of all gradients is 30 MB
    const auto* const of_sixths = "665262de3a65e06b130ab0aab6942963";
    if (layout_after(nullptr) == of_sixths) return "chosen by the earlier rule";
    if (layout_after(of_sixths) != of_sixths) return "not kept";
    if (!lines.empty()) return lines.front();
    if (layout_after("0123456789abcdef") != layout_after(nullptr) || lines.size() != 1)
      return "another layout is not logged";
    return "right";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}
