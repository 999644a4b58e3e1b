// The time of training steps over the ranks that a launcher started, with or without the watchdog:
//   holdfast launch --nproc 2 -- watchdog_bench on|off STEPS WIDTH      rank 0 prints the median step in milliseconds
// The step's only collectives are the Reducer's. watchdog_bench.py compares.
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "holdfast/holdfast.h"
#include "ranks/group_control.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  using Clock = std::chrono::steady_clock;
  using namespace holdfast;
  at::set_num_threads(1);
  Group group(read_rank_environment(), c10::kCPU, {.watchdog = std::string(argv[1]) == "on"});
  holdfast::detail::GroupControl control(group);
  const std::uint64_t steps = std::strtoull(argv[2], nullptr, 10);
  const std::int64_t width = std::atoll(argv[3]);
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Linear(width, width), torch::nn::ReLU(), torch::nn::Linear(width, width));
  FusedSgd optimizer(net->parameters(), torch::optim::SGDOptions(1e-3));
  StageContext context{"bench", group, c10::kCPU, *net, optimizer, {}, {}, [](const std::string&) {}};
  for (const auto& parameter : net->named_parameters())
    context.parameters.push_back({parameter.key(), parameter.value()});
  Pipeline pipeline(std::move(context), {Ddp()});
  const auto data = torch::randn({64, width});
  std::vector<double> milliseconds;
  for (std::uint64_t step = 1; step <= steps; ++step) {
    const auto begin = Clock::now();
    StepFacts facts;
    facts.number = step;
    pipeline.step(StepInfo(facts), [&] { return net->forward(data).square().mean(); });
    (void)control.at_step(step, steps, {});
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  control.close();
  std::sort(milliseconds.begin(), milliseconds.end());
  if (group.is_main()) std::printf("%.6f\n", milliseconds[milliseconds.size() / 2]);
  return 0;
}
