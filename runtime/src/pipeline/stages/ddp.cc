#include "holdfast/runtime/pipeline/stages/ddp.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// Averages one bucket. It divides before it adds, as c10d does, so that sums of many ranks stay in range.
struct AverageHook final : c10d::CppCommHookInterface<c10::intrusive_ptr<c10d::ProcessGroup>> {
  AverageHook(c10::intrusive_ptr<c10d::ProcessGroup> group, const DdpOptions& given)
      : CppCommHookInterface(std::move(group)), compress(given.compress) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    const at::NoGradGuard no_grad;
    at::Tensor& whole = bucket.getBufferRef();
    if (compress != Compress::none && whole.scalar_type() == at::kFloat) return average_compressed(whole);
    std::vector<at::Tensor> travelling{whole};
    c10d::AllreduceOptions options;
    if (whole.is_cuda()) {
      options.reduceOp = c10d::ReduceOp::AVG;  // NCCL divides as it reads, which saves a pass over all gradients
    } else {
      whole.div_(state_->getSize());
    }
    return state_->allreduce(travelling, options)->getFuture();
  }

  c10::intrusive_ptr<c10::ivalue::Future> average_compressed(const at::Tensor& whole) {
    const auto dtype = compress == Compress::bf16 ? at::kBFloat16 : at::kHalf;
    std::vector<at::Tensor> travelling{at::empty_like(whole, whole.options().dtype(dtype))};
    at::div_out(travelling[0], whole, at::scalar_tensor(state_->getSize()));  // divides and converts in one pass
    auto sum = state_->allreduce(travelling)->getFuture();
    return sum->then(
        [whole, travelling](c10::ivalue::Future& done) {
          if (done.hasError()) std::rethrow_exception(done.exception_ptr());
          const at::NoGradGuard no_grad_there;
          whole.copy_(travelling[0]);
          return c10::IValue(std::vector<at::Tensor>{whole});
        },
        sum->elementType());
  }

  Compress compress;
};

using Layout = std::vector<std::vector<std::size_t>>;

std::string digest_of(const Layout& layout) { return storage::digest_of(nlohmann::json(layout).dump()).hex(); }

}  // namespace

namespace detail {

std::vector<BucketLimits> automatic_bucket_limits(std::int64_t all_gradients, std::int64_t first) {
  constexpr std::int64_t mb = std::int64_t{1} << 20;
  const std::int64_t twelfth = std::clamp(all_gradients / 12, 25 * mb, 200 * mb);
  const std::int64_t sixth = std::clamp(all_gradients / 6, 25 * mb, 400 * mb);
  return {{first, twelfth, 25 * mb}, {first, sixth, sixth}};
}

std::vector<std::vector<std::size_t>> bucket_layout(const std::vector<at::Tensor>& parameters,
                                                    const BucketLimits& limits) {
  struct Open {
    std::vector<std::size_t> indices;
    std::int64_t bytes = 0;
  };
  std::map<std::pair<c10::ScalarType, std::string>, Open> open;  // by dtype and device
  std::vector<std::vector<std::size_t>> layout;
  std::int64_t left = 0;  // in no closed bucket
  for (const at::Tensor& parameter : parameters) left += static_cast<std::int64_t>(parameter.nbytes());
  for (std::size_t i = parameters.size(); i-- > 0;) {
    const at::Tensor& parameter = parameters[i];
    Open& bucket = open[{parameter.scalar_type(), parameter.device().str()}];
    bucket.indices.push_back(i);
    bucket.bytes += static_cast<std::int64_t>(parameter.nbytes());
    const std::int64_t further = std::max(limits.least, std::min(limits.most, left / 2));
    if (bucket.bytes < (layout.empty() ? limits.first : further)) continue;
    left -= bucket.bytes;
    layout.push_back(std::move(bucket.indices));
    bucket = {};
  }
  for (auto& [kind, bucket] : open) {
    if (!bucket.indices.empty()) layout.push_back(std::move(bucket.indices));
  }
  return layout;
}

}  // namespace detail

struct Ddp::Impl {
  // With find_unused, c10d's Reducer notes the parameters that backward passes used since the last average. That
  // includes other pipelines' passes and dropped windows, and excludes an earlier process's. So note_used() replaces
  // the notes by the parameters that have a gradient.
  struct Reducer final : c10d::Reducer {
    using c10d::Reducer::Reducer;
    void note_used(const std::vector<at::Tensor>& parameters) {
      auto* const used = local_used_map_.mutable_data_ptr<std::int32_t>();
      for (std::size_t i = 0; i < parameters.size(); ++i) used[i] = parameters[i].grad().defined() ? 1 : 0;
    }
  };

  explicit Impl(const DdpOptions& given) : options(given) {}

  // Called at the first forward, when the parameters are restored and have their final place.
  void build() {
    // A frozen parameter keeps its place in its bucket, but the Reducer accepts only parameters that require gradients.
    std::vector<at::Tensor> frozen;
    for (const at::Tensor& tensor : tensors) {
      if (!tensor.requires_grad()) frozen.push_back(tensor.requires_grad_(true));
    }
    reducer = std::make_unique<Reducer>(
        tensors, layout(), context->group.process_group(), std::vector<bool>(tensors.size(), false),
        options.bucket_bytes, options.find_unused, /*gradient_as_bucket_view=*/true,
        std::unordered_map<std::size_t, std::string>(), options.first_bucket_bytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<std::int64_t>());
    reducer->register_comm_hook(std::make_unique<AverageHook>(context->group.process_group(), options));
    for (const at::Tensor& tensor : frozen) tensor.requires_grad_(false);
  }

  // The layout in effect is the first of `layouts`; the others are those that earlier versions would have chosen.
  const Layout& layout() const { return layouts.front(); }

  DdpOptions options;
  StageContext* context = nullptr;
  std::vector<at::Tensor> tensors;
  std::vector<Layout> layouts;
  std::unique_ptr<Reducer> reducer;
  bool rebuilt = false;
};

Ddp::Ddp(const DdpOptions& options) : impl_(std::make_unique<Impl>(options)) {
  if (options.bucket_bytes < 0 || options.first_bucket_bytes < 1) {
    throw Error(StatusCode::invalid,
                "Ddp: bucket_bytes must be at least 1, or 0 for automatic, and first_bucket_bytes at least 1");
  }
}

Ddp::Ddp(Ddp&&) noexcept = default;
Ddp::~Ddp() = default;

void Ddp::attach(StageContext& context) {
  impl_->context = &context;
  std::int64_t all = 0;
  for (const NamedParameter& parameter : context.parameters) {
    impl_->tensors.push_back(parameter.tensor);
    all += static_cast<std::int64_t>(parameter.tensor.nbytes());
  }
  DdpOptions& options = impl_->options;
  const std::vector<detail::BucketLimits> limits =
      options.bucket_bytes == 0
          ? detail::automatic_bucket_limits(all, options.first_bucket_bytes)
          : std::vector<detail::BucketLimits>{{options.first_bucket_bytes, options.bucket_bytes, options.bucket_bytes}};
  for (const auto& one : limits) impl_->layouts.push_back(detail::bucket_layout(impl_->tensors, one));
  options.bucket_bytes = limits.front().most;  // for the Reducer, which wants one beside a layout
  if (context.parameters.empty()) {
    throw Error(StatusCode::invalid, "Ddp: the module has no parameter that requires a gradient");
  }
  if (context.group.world_size() == 1) return;
  context.net.apply([](const std::string& name, const torch::nn::Module& part) {
    const auto* const embedding = part.as<torch::nn::Embedding>();
    const auto* const bag = part.as<torch::nn::EmbeddingBag>();
    if (!(embedding && embedding->options.sparse()) && !(bag && bag->options.sparse())) return;
    throw Error(StatusCode::unsupported,
                fmt::format("Ddp: the embedding {} gives sparse gradients, which no bucket can hold: construct it "
                            "without sparse(true)",
                            name.empty() ? "of the pipeline" : name));
  });
}

std::shared_ptr<void> Ddp::forward_scope(const MicroBatch& micro) {
  StageContext& context = *impl_->context;
  if (context.group.world_size() == 1) return nullptr;
  if (!impl_->reducer) {
    impl_->build();
  } else if (!impl_->rebuilt && micro.first && impl_->reducer->should_rebuild_buckets()) {
    // c10d reorders buckets once, by the time at which gradients came. Holdfast's buckets depend on the parameters
    // alone, so they are restored.
    context.group.operation(
        "bucket layout", [&] { impl_->reducer->rebuild_buckets(); }, micro.site);
    impl_->reducer->initialize_buckets(impl_->layout());
    impl_->rebuilt = true;
  }
  if (impl_->options.broadcast_buffers && micro.first && context.net.is_training()) {
    std::vector<at::Tensor> buffers;
    for (const at::Tensor& buffer : context.net.buffers()) {
      // As bytes, because no backend moves every dtype, and buffers of one dtype share a message.
      const bool whole = buffer.is_contiguous() && !buffer.is_conj() && !buffer.is_neg();
      buffers.push_back(whole ? buffer.detach().view({-1}).view(at::kByte) : buffer.detach());
    }
    if (!buffers.empty()) {
      const auto act = [&] {
        c10d::broadcast_coalesced(context.group.process_group(), buffers, std::size_t{250} << 20);
      };
      context.group.operation("broadcast of buffers", act, micro.site);
    }
  }
  return nullptr;
}

void Ddp::before_backward(const MicroBatch& micro, at::Tensor& loss) {
  if (!impl_->reducer || !micro.last) return;
  if (impl_->options.find_unused) impl_->reducer->note_used(impl_->tensors);
  impl_->reducer->prepare_for_backward(impl_->options.find_unused ? std::vector<at::Tensor>{loss}
                                                                  : std::vector<at::Tensor>());
}

void Ddp::after_backward(const MicroBatch& micro) {
  if (!impl_->reducer || !micro.last) return;
  try {
    impl_->reducer->check_finalized();
  } catch (const c10::Error&) {
    // Some buckets never became full, so they were not averaged.
    std::vector<std::string> without;
    for (const NamedParameter& parameter : impl_->context->parameters) {
      if (!parameter.tensor.grad().defined()) without.push_back(parameter.name);
    }
    const std::size_t more = without.size() > 3 ? without.size() - 3 : 0;
    without.resize(without.size() - more);
    throw Error(StatusCode::invalid,
                fmt::format("Ddp: the loss does not depend on {}{}, so gradients could not be averaged: use "
                            "Ddp({{.find_unused = true}}) if some steps do not use every part of the model",
                            without.empty() ? "some parameters" : fmt::format("{}", fmt::join(without, ", ")),
                            more > 0 ? fmt::format(" and {} more parameters", more) : ""));
  }
}

void Ddp::save(State& state) const { state.put("layout", digest_of(impl_->layout())); }

void Ddp::load(const State& state) {
  if (impl_->context->group.world_size() == 1) return;
  const auto saved = state.get<std::string>("layout");
  for (Layout& layout : impl_->layouts) {
    if (digest_of(layout) != saved) continue;
    std::swap(impl_->layouts.front(), layout);
    return;
  }
  impl_->context->say(
      "not bit-exact: gradients were averaged in other buckets, because Ddp has other options or the model has other "
      "parameters");
}

}  // namespace holdfast
