// One save and one restore, and the comparison of what was restored.
#pragma once

#include <torch/torch.h>

#include <cstring>

#include "tracked_run.h"

/// Compares raw bytes, so that NaNs can be equal.
inline bool same_bytes(const torch::Tensor& a, const torch::Tensor& b) {
  const auto x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

/// A small network with parameters and buffers.
inline torch::nn::Sequential make_net(int hidden = 3) {
  return torch::nn::Sequential(torch::nn::Linear(2, hidden), torch::nn::BatchNorm1d(hidden));
}

/// Saves `from` and restores it into `to`.
inline holdfast::Restored carry(const holdfast::RunState& from, holdfast::RunState& to,
                                const holdfast::LoosenOptions& loosen = {}) {
  TrackedRun run;
  run.save(from);
  return to.restore(run.newest(), loosen);
}
