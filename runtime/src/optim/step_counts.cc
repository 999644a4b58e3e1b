#include "optim/step_counts.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <unordered_map>

namespace holdfast {
namespace {

bool is_all(const at::Tensor& shared, const std::vector<at::Tensor>& counts) {
  return shared.numel() == static_cast<std::int64_t>(counts.size());
}

}  // namespace

StepCounts::StepCounts(const std::vector<std::pair<at::Device, Counted*>>& all) {
  std::unordered_map<at::Device, std::vector<Counted*>> fresh;
  for (const auto& [device, state] : all) {
    if (!state->counts.defined()) fresh[device].push_back(state);
  }
  for (auto& [device, states] : fresh) {
    const auto counts = at::zeros({static_cast<std::int64_t>(states.size())}, at::device(device).dtype(at::kFloat));
    const auto views = counts.unbind();
    for (std::size_t i = 0; i < states.size(); ++i) {
      states[i]->counts = counts;
      states[i]->index = static_cast<std::int64_t>(i);
      states[i]->count = views[i];
      // Filled, not copied: a copy from the host's ordinary memory waits for the device.
      if (const auto steps = states[i]->host_steps()) states[i]->count.fill_(steps);
    }
  }
  for (const auto& [device, state] : all) {
    const auto same = [&state = state](const auto& part) { return part.shared.is_same(state->counts); };
    auto part = std::find_if(parts_.begin(), parts_.end(), same);
    if (part == parts_.end()) part = parts_.insert(part, {state->counts, {}});
    part->counts.push_back(state->count);
  }
}

void StepCounts::add_one() {
  for (auto& [shared, counts] : parts_) {
    if (is_all(shared, counts)) {
      shared.add_(1);
    } else {
      at::_foreach_add_(counts, 1);
    }
  }
}

void StepCounts::subtract(const at::Tensor& found_inf) {
  for (auto& [shared, counts] : parts_) {
    const at::Tensor taken_back = on_device(found_inf, shared.device());
    if (is_all(shared, counts)) {
      shared.sub_(taken_back);
    } else {
      at::_foreach_sub_(counts, std::vector<at::Tensor>(counts.size(), taken_back));
    }
  }
}

at::Tensor on_device(const at::Tensor& x, at::Device device) {
  return x.defined() ? x.to(device, /*non_blocking=*/true).reshape({}) : x;
}

}  // namespace holdfast
