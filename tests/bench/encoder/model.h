// The model and the tokens of both loops.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "settings.h"

namespace encoder_bench {

inline constexpr std::uint64_t kSeed = 1;
inline constexpr double kLearningRate = 1e-5;  // small: the power that multipliers use depends on the numbers

struct Batch {
  at::Tensor tokens, targets;
};

inline Batch make_batch(const Settings& s, int rank, c10::Device device) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(kSeed + 1 + static_cast<std::uint64_t>(rank));
  const auto draw = [&] {
    return at::randint(s.model.vocabulary, {s.batch, s.model.context}, generator, at::kLong).to(device);
  };
  return {draw(), draw()};
}

inline at::Tensor loss_of(Transformer& net, const Batch& batch) {
  return torch::nn::functional::cross_entropy(net->forward(batch.tokens).flatten(0, 1), batch.targets.flatten());
}

}  // namespace encoder_bench
