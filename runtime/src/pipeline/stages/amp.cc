#include "holdfast/runtime/pipeline/stages/amp.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <fmt/format.h>

#include <limits>

#include "device/device.h"
#include "holdfast/runtime/error.h"
#include "tensors/tensor_groups.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// LibTorch has no such scope in C++; this one does what torch.autocast does on entering and leaving. A scope caches
// casts of parameters, so it ends before the optimizer changes them.
class AutocastScope {
 public:
  AutocastScope(at::DeviceType device, at::ScalarType dtype)
      : device_(device),
        was_enabled_(at::autocast::is_autocast_enabled(device)),
        former_dtype_(at::autocast::get_autocast_dtype(device)) {
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::set_autocast_dtype(device, dtype);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_dtype(device_, former_dtype_);
    at::autocast::set_autocast_enabled(device_, was_enabled_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  at::DeviceType device_;
  bool was_enabled_;
  at::ScalarType former_dtype_;
};

Precision best_for(c10::Device device) {
  if (!device.is_cuda()) return Precision::fp32;
  const auto gpus = find_gpus().gpus;
  const auto index = static_cast<std::size_t>(device.has_index() ? device.index() : 0);
  return index < gpus.size() && gpus[index].major >= 8 ? Precision::bf16 : Precision::fp16;
}

void require(bool right, const std::string& sentence) {
  if (!right) throw Error(StatusCode::invalid, sentence);
}

}  // namespace

Amp::Amp(Precision precision, const AmpOptions& options) : precision_(precision), options_(options) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  require(options.initial_scale > 0 && options.initial_scale <= kLargest,
          "Amp: initial_scale must be above 0, and a float32 number");
  require(options.growth_factor > 1 && options.growth_factor <= kLargest,
          "Amp: growth_factor must be above 1, and a float32 number");
  require(options.backoff_factor > 0 && options.backoff_factor < 1, "Amp: backoff_factor must be between 0 and 1");
  require(options.growth_interval > 0, "Amp: growth_interval must be at least 1");
}

void Amp::attach(StageContext& context) {
  device_ = context.device;
  if (context.precision) precision_ = *context.precision;
  if (precision_ == Precision::automatic) precision_ = best_for(device_);
  if (precision_ != Precision::fp16) return;
  for (const NamedParameter& parameter : context.parameters) {
    require(parameter.tensor.scalar_type() != at::kHalf,
            fmt::format("Amp: parameter {} is in fp16 itself, and its gradients could not be unscaled: keep parameters "
                        "in float32, autocast computes in fp16 where that is right",
                        parameter.name));
    require(!parameter.tensor.is_complex(),
            fmt::format("Amp: parameter {} is complex, and LibTorch cannot unscale its gradients: use bf16 or fp32",
                        parameter.name));
  }
  scale_ = at::full({}, options_.initial_scale, at::TensorOptions(at::kFloat).device(device_));
  growth_ = at::zeros({}, at::TensorOptions(at::kInt).device(device_));
}

std::shared_ptr<void> Amp::forward_scope(const MicroBatch&) {
  if (precision_ == Precision::fp32) return nullptr;
  return std::make_shared<AutocastScope>(device_.type(), precision_ == Precision::bf16 ? at::kBFloat16 : at::kHalf);
}

void Amp::before_backward(const MicroBatch&, at::Tensor& loss) {
  if (scale_.defined()) loss = loss * scale_;
}

void Amp::before_update(Update& update) {
  if (!scale_.defined()) return;
  const at::Tensor inverse = scale_.to(at::kDouble).reciprocal().to(at::kFloat);
  update.found_inf = at::zeros({1}, at::TensorOptions(at::kFloat).device(device_));
  for (const auto& group : dense_by_kind(update.gradients, name())) {
    at::_amp_foreach_non_finite_check_and_unscale_(group, update.found_inf, inverse);
  }
}

void Amp::after_update(const Update& update, const at::Tensor&) {
  if (!scale_.defined()) return;
  at::_amp_update_scale_(scale_, growth_, update.found_inf, options_.growth_factor, options_.backoff_factor,
                         options_.growth_interval);
}

void Amp::save(State& state) const {
  state.put("precision", to_string(precision_));
  if (scale_.defined()) state.put("scale", scale_).put("growth", growth_);
}

void Amp::load(const State& state) {
  if (!scale_.defined() || !state.has("scale")) return;  // one of the two precisions has no scale
  state.get_to("scale", scale_);
  state.get_to("growth", growth_);
}

double Amp::scale() const { return scale_.defined() ? scale_.item<double>() : 1.0; }

}  // namespace holdfast
