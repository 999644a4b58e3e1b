#include <ATen/autocast_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <unordered_map>
#include <utility>
#include <vector>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "answers.h"
#include "holdfast/runtime/ranks/rank_environment.h"
#include "loops.h"
#include "model.h"
#include "rounds.h"

namespace encoder_bench {

namespace {

class Autocast {
 public:
  explicit Autocast(c10::DeviceType device) : device_(device) {
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, false);
  }

 private:
  c10::DeviceType device_;
};

c10::intrusive_ptr<c10d::ProcessGroup> join(const holdfast::RankEnvironment& ranks, c10::Device device) {
  c10d::TCPStoreOptions options;
  options.port = ranks.port;
  options.isServer = ranks.rank == 0;
  options.numWorkers = static_cast<std::size_t>(ranks.world_size);
  const auto store = c10::make_intrusive<c10d::TCPStore>(ranks.address, options);
  const auto named = [&](const char* name) { return c10::make_intrusive<c10d::PrefixStore>(name, store); };
  auto group = c10::make_intrusive<c10d::ProcessGroup>(named("group"), ranks.rank, ranks.world_size);
  if (device.is_cuda()) {
#ifdef USE_C10D_NCCL
    group->setBoundDeviceId(device);
    group->setBackend(device.type(), c10d::ProcessGroup::BackendType::NCCL,
                      c10::make_intrusive<c10d::ProcessGroupNCCL>(named("nccl"), ranks.rank, ranks.world_size));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
#else
    refuse("this build has no NCCL, so several ranks cannot use GPUs");
#endif
  } else {
    auto options_of_gloo = c10d::ProcessGroupGloo::Options::create();
    options_of_gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(ranks.address));
    group->setBackend(device.type(), c10d::ProcessGroup::BackendType::GLOO,
                      c10::make_intrusive<c10d::ProcessGroupGloo>(named("gloo"), ranks.rank, ranks.world_size,
                                                                  std::move(options_of_gloo)));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  }
  return group;
}

// Buckets as DistributedDataParallel makes them: from the last parameter to the first; the Reducer later rebuilds them
// in the order in which gradients arrive.
std::unique_ptr<c10d::Reducer> make_reducer(const std::vector<at::Tensor>& parameters, const Settings& s,
                                            c10::intrusive_ptr<c10d::ProcessGroup> group) {
  const std::vector<bool> sparse(parameters.size(), false);
  const std::int64_t size = s.ddp.bucket_bytes > 0 ? s.ddp.bucket_bytes : std::int64_t{25} << 20;  // Python's default
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
      parameters, {static_cast<std::size_t>(s.ddp.first_bucket_bytes), static_cast<std::size_t>(size)}, sparse));
  std::reverse(buckets.begin(), buckets.end());
  return std::make_unique<c10d::Reducer>(
      parameters, std::move(buckets), std::move(group), sparse, size, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true, std::unordered_map<std::size_t, std::string>(), s.ddp.first_bucket_bytes,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<std::int64_t>());
}

struct AdamW {
  explicit AdamW(const std::vector<at::Tensor>& given) : parameters(given) {
    for (const at::Tensor& parameter : parameters) {
      means.push_back(at::zeros_like(parameter));
      squares.push_back(at::zeros_like(parameter));
      steps.push_back(at::zeros({}, parameter.options().requires_grad(false)));
    }
  }
  void step() {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
    at::_foreach_add_(steps, 1);
    const torch::optim::AdamWOptions defaults;
    const auto [beta1, beta2] = defaults.betas();
    at::_fused_adamw_(parameters, gradients, means, squares, {}, steps, kLearningRate, beta1, beta2,
                      defaults.weight_decay(), defaults.eps(), /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
  }

  std::vector<at::Tensor> parameters, means, squares, steps;
};

// The parts of an exchange, each alone on the device: their cost if nothing overlapped with them.
json exchange_alone(const c10d::Reducer& reducer, c10d::ProcessGroup& group, c10::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> buckets, halves, views, gradients;
  std::int64_t elements = 0;
  for (const auto& bucket : reducer.get_grad_buckets(/*return_zero_tensors=*/false)) {
    buckets.push_back(bucket.getBuffer());
    halves.push_back(bucket.getBuffer().to(at::kBFloat16));
    elements += bucket.getBuffer().numel();
    for (const at::Tensor& view : bucket.getGradients()) {
      views.push_back(view);
      gradients.push_back(at::ones_like(view));
    }
  }
  const std::vector<at::Tensor> whole{at::zeros({elements}, buckets.front().options())};
  const at::Tensor share = at::scalar_tensor(1.0 / group.getSize());
  const auto timed = [&](const auto& act) {
    constexpr int kWarm = 3, kRepeats = 11;
    std::vector<Mark> marks;
    for (int i = 0; i < kWarm; ++i) act();
    synchronize(device);
    for (int i = 0; i < kRepeats; ++i) {
      marks.emplace_back(device);
      act();
    }
    marks.emplace_back(device);
    synchronize(device);
    std::vector<double> times;
    for (std::size_t i = 1; i < marks.size(); ++i) times.push_back(marks[i - 1].milliseconds_to(marks[i]));
    return median_of(times);
  };
  const auto all_reduce = [&](const std::vector<at::Tensor>& tensors, c10d::ReduceOp how) {
    c10d::AllreduceOptions options;
    options.reduceOp = how;
    std::vector<c10::intrusive_ptr<c10d::Work>> under_way;
    for (const at::Tensor& tensor : tensors) {
      std::vector<at::Tensor> one{tensor};
      under_way.push_back(group.allreduce(one, options));
    }
    for (const auto& work : under_way) work->wait();
  };
  const auto each = [](const std::vector<at::Tensor>& tensors, const auto& act) {
    for (std::size_t i = 0; i < tensors.size(); ++i) act(i);
  };
  json parts = json::array();
  const auto part = [&](const char* what, const auto& act) { parts.push_back({{"part", what}, {"ms", timed(act)}}); };
  for (const at::Tensor& bucket : buckets) bucket.zero_();  // so that sums stay 0
  for (const at::Tensor& half : halves) half.zero_();
  part("all-reduce, bucket after bucket", [&] { all_reduce(buckets, c10d::ReduceOp::SUM); });
  if (device.is_cuda()) {
    part("the same with NCCL's own mean", [&] { all_reduce(buckets, c10d::ReduceOp::AVG); });
  }
  part("the same in bf16", [&] { all_reduce(halves, c10d::ReduceOp::SUM); });
  part("all-reduce of one tensor of all bytes", [&] { all_reduce(whole, c10d::ReduceOp::SUM); });
  part("gradients divided and copied to the buckets",
       [&] { each(views, [&](std::size_t i) { at::mul_out(views[i], gradients[i], share); }); });
  part("buckets divided in place", [&] { each(buckets, [&](std::size_t i) { buckets[i].mul_(share); }); });
  part("buckets divided and converted to bf16",
       [&] { each(buckets, [&](std::size_t i) { at::mul_out(halves[i], buckets[i], share); }); });
  part("bf16 converted back", [&] { each(buckets, [&](std::size_t i) { buckets[i].copy_(halves[i]); }); });
  return {{"parts", parts}, {"buckets", buckets.size()}, {"bytes", elements * 4}};
}

}  // namespace

int run_plain(const Settings& s) {
  const auto ranks = holdfast::read_rank_environment();
  const c10::Device device =
      s.cuda ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(ranks.local_rank)) : c10::Device(c10::kCPU);
  if (s.cuda) c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
  torch::manual_seed(kSeed);
  Transformer net(s.model);
  net->to(device);
  const std::vector<at::Tensor> parameters = net->parameters();
  AdamW optimizer(parameters);
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<c10d::Reducer> reducer;
  if (ranks.world_size > 1) {
    group = join(ranks, device);
    reducer = make_reducer(parameters, s, group);
    std::vector<at::Tensor> first{at::ones({1}, at::TensorOptions(device))};
    group->allreduce(first)->wait();  // NCCL connects here instead of in a round
  }
  const Batch batch = make_batch(s, ranks.rank, device);
  Rounds rounds(device, [&](const std::string& order) -> json {
    if (order != "exchange" || !reducer) refuse("unknown order " + order);
    return exchange_alone(*reducer, *group, device);
  });
  if (s.mark_last_gradient) rounds.mark_last_gradient_of(net->tokens->weight);
  rounds.ready(*net);
  while (rounds.another_step()) {
    const bool exchanges = reducer && rounds.exchanges();
    if (exchanges && reducer->should_rebuild_buckets()) reducer->rebuild_buckets();
    at::Tensor loss;
    {
      const Autocast autocast(device.type());
      loss = loss_of(net, batch);
    }
    rounds.after_forward(loss);
    if (exchanges) reducer->prepare_for_backward({});
    loss.backward();
    rounds.after_backward();
    optimizer.step();
    rounds.after_update();
  }
  std::_Exit(0);  // the ranks end together; none of their data is kept
}

}  // namespace encoder_bench
