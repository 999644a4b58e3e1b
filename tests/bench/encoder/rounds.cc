#include "rounds.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <iostream>
#include <sstream>

#include "answers.h"

namespace encoder_bench {

void Rounds::ready(const torch::nn::Module& net) {
  std::int64_t parameters = 0;
  for (const auto& parameter : net.parameters()) parameters += parameter.numel();
  answer({{"ready", true}, {"parameters", parameters}});
}

bool Rounds::another_step() {
  for (std::string line; done_ == warm_ + steps_;) {
    if (steps_ > 0) report();
    steps_ = warm_ = done_ = 0;
    if (!std::getline(std::cin, line) || line == "quit") return false;
    std::istringstream order(line);
    std::string word, how;
    order >> word;
    if (word == "round") {
      order >> warm_ >> steps_ >> how;
      exchanges_ = how != "local";
    } else {
      answer(other_(line));
      leave_memory();
    }
  }
  if (++done_ == warm_ + 1) start_timing();
  if (done_ > warm_) timed_.push_back({Mark(device_), {}, {}, {}, {}});
  return true;
}

void Rounds::start_timing() {
  synchronize(device_);
  if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->resetPeakStats(device_.index());
  timed_.clear();
  begin_ = Clock::now();
}

void Rounds::report() {
  const Mark end(device_);
  const auto issued = Clock::now();
  synchronize(device_);
  const auto count = static_cast<double>(steps_);
  json times = {{"wall", milliseconds_between(begin_, Clock::now()) / count},
                {"host", milliseconds_between(begin_, issued) / count}};
  for (std::size_t i = 0; i < timed_.size(); ++i) {
    const StepMarks& step = timed_[i];
    times["step"].push_back(step.begin.milliseconds_to(i + 1 < timed_.size() ? timed_[i + 1].begin : end));
    times["forward"].push_back(step.begin.milliseconds_to(*step.forward));
    times["backward"].push_back(step.forward->milliseconds_to(*step.backward));
    if (step.last_gradient) times["tail"].push_back(step.last_gradient->milliseconds_to(*step.backward));
    times["update"].push_back(step.backward->milliseconds_to(*step.update));
  }
  json round = {{"times", times}, {"loss", loss_.item<double>()}};
  if (device_.is_cuda()) {
    const auto memory = c10::getDeviceAllocator(device_.type())->getDeviceStats(device_.index());
    round["peak_bytes"] = memory.allocated_bytes[0].peak;  // [0]: all pools together
  }
  timed_.clear();
  loss_ = at::Tensor();
  leave_memory();
  answer(round);
}

void Rounds::leave_memory() const {
  if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->emptyCache();
}

}  // namespace encoder_bench
