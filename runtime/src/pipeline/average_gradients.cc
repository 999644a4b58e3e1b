#include "pipeline/average_gradients.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <tuple>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {
namespace {

constexpr std::int64_t kBucketBytes = std::int64_t{64} << 20;

// A number that differs for almost all other gradients, from few operations on the device.
double fingerprint(const std::vector<at::Tensor>& gradients) {
  double sum = 0;
  for (const at::Tensor& gradient : gradients) {
    if (gradient.defined()) sum += gradient.to(at::kDouble).square().sum().item<double>();
  }
  return sum;
}

// Must be alike on all ranks, because gradients are added as flat buckets: "4 parameters of 17 numbers (…)".
std::string layout(const std::vector<NamedParameter>& parameters) {
  std::int64_t numbers = 0;
  std::vector<std::int64_t> shapes;  // numbers rather than words, because this runs in every step
  for (const auto& [name, tensor] : parameters) {
    numbers += tensor.numel();
    shapes.insert(shapes.end(), {tensor.dim(), static_cast<std::int64_t>(tensor.scalar_type()),
                                 static_cast<std::int64_t>(tensor.device().type())});
    shapes.insert(shapes.end(), tensor.sizes().begin(), tensor.sizes().end());
  }
  return fmt::format("{} parameters of {} numbers (layout {})", parameters.size(), numbers,
                     storage::digest_of(std::as_bytes(std::span(shapes))).hex().substr(0, 8));
}

}  // namespace

std::string average_gradients(Group& group, const std::vector<NamedParameter>& parameters, double weight, bool suspect,
                              Group::Site site) {
  if (group.world_size() == 1) return {};
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> distinct, gradients;
  std::vector<int> mine;
  for (const NamedParameter& parameter : parameters) {
    distinct.push_back(parameter.tensor);
    gradients.push_back(parameter.tensor.grad());
    mine.push_back(gradients.back().defined() ? 1 : 0);
    if (gradients.back().defined() && gradients.back().layout() != at::kStrided) {
      throw Error(storage::StatusCode::unsupported,
                  "average_gradients takes dense gradients; make the embedding without sparse(true)");
    }
  }
  using Word = std::tuple<std::vector<int>, double>;
  const auto all = group.compare("average_gradients", layout(parameters),
                                 nlohmann::json(Word(mine, suspect ? fingerprint(gradients) : 0)), site);
  std::vector<int> any(mine.size());
  bool same = true;
  const auto first = all[0].get<Word>();
  for (const auto& one : all) {
    const auto word = one.get<Word>();
    for (std::size_t i = 0; i < any.size(); ++i) any[i] |= std::get<0>(word)[i];
    same = same && word == first;
  }

  group.operation(
      "average_gradients",
      [&] {
        for (std::size_t begin = 0; begin < distinct.size();) {
          // One message for neighbours of one dtype and device.
          std::size_t end = begin;
          std::int64_t bytes = 0;
          std::vector<at::Tensor> parts;
          std::vector<std::size_t> members;
          while (end < distinct.size() && bytes < kBucketBytes && distinct[end].dtype() == distinct[begin].dtype() &&
                 distinct[end].device() == distinct[begin].device()) {
            if (any[end]) {
              parts.push_back(
                  (gradients[end].defined() ? gradients[end] : at::zeros_like(distinct[end])).reshape({-1}));
              bytes += static_cast<std::int64_t>(parts.back().nbytes());
              members.push_back(end);
            }
            ++end;
          }
          begin = end;
          if (parts.empty()) continue;
          std::vector<at::Tensor> bucket{at::cat(parts)};
          bucket[0].mul_(weight / group.world_size());
          group.process_group()->allreduce(bucket)->wait();
          std::int64_t offset = 0;
          for (const std::size_t i : members) {
            const auto mean = bucket[0].narrow(0, offset, distinct[i].numel()).view(distinct[i].sizes());
            if (gradients[i].defined()) {
              gradients[i].copy_(mean);
            } else {
              distinct[i].mutable_grad() = mean.clone();
            }
            offset += distinct[i].numel();
          }
        }
      },
      site);
  if (!same || std::get<1>(first) == 0) return {};
  return "every rank computed exactly the same gradients, so all ranks seem to use the same samples: take batches from "
         "holdfast::Loader, which gives every rank its own part, or make them depend on session.rank()";
}

}  // namespace holdfast
