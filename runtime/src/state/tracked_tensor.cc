#include "state/tracked_tensor.h"

#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <optional>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/text.h"

namespace holdfast {
namespace {

/// Empty if the name is not a device's.
std::optional<at::Device> device_of(const std::string& name) {
  try {
    return at::Device(name);
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

class TrackedTensor : public TrackedItem {
 public:
  TrackedTensor(std::string name, at::Tensor& tensor) : TrackedItem(std::move(name)), tensor_(tensor) {}

  void add_names(TensorNames& names) const override {
    if (tensor_.defined()) names.add(name(), tensor_, /*is_alike=*/false, /*is_variable=*/true);
  }

  void begin(const TensorNames&) override {
    code_ = flag();
    code_form_ = form();
  }

  void capture(Capture& capture) const override {
    require_form(capture);
    const std::string device = tensor_.defined() ? tensor_.device().str() : "undefined";
    nlohmann::json value = {{"device", device}};
    if (const auto requires_grad = flag()) {
      value["requires_grad"] = *requires_grad;
      value["initial"] = code_.value_or(*requires_grad);
    }
    if (tensor_.defined() && !code_form_.empty() && code_form_ != form()) value["began"] = code_form_;
    capture.value(name(), value.size() == 1 ? value.at("device") : value);
  }

  void plan(RestorePlan& plan) override {
    const nlohmann::json* saved = plan.find_value(name());
    try {
      if (!tensor_.defined()) {
        plan_new_tensor(plan, saved);
      } else {
        plan_other_form(plan, saved);
      }
      plan_flag(plan, saved);
    } catch (const nlohmann::json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "is a tensor in the program, but another kind of object in the checkpoint");
    }
  }

 private:
  void plan_new_tensor(RestorePlan& plan, const nlohmann::json* saved) {
    const storage::TensorEntry* entry = plan.find_tensor(name());
    if (!entry) {
      if (!saved) plan.missing(name(), "an undefined tensor");
      return;
    }
    at::Device device = at::kCPU;
    std::string was_on;
    if (saved) was_on = saved->is_object() ? saved->value("device", "") : saved->get<std::string>();
    if (!was_on.empty() && was_on != "undefined") {
      const std::optional<at::Device> known = device_of(was_on);
      if (!known) {
        plan.differs(Difference::Kind::value, name(),
                     "was saved on the device " + storage::in_quotes(was_on) + ", which LibTorch does not know");
        return;
      }
      at::Device was = *known;
      // Another rank's GPU is not this rank's.
      if (was.is_cuda() && plan.place().device.is_cuda() && plan.saved_ranks() != plan.place().world_size) {
        was = plan.place().device;
      }
      if (was.is_cpu() || (was.is_cuda() && was.index() < torch::cuda::device_count())) {
        device = was;
      } else {
        plan.fit.notes.push_back(name() + " was on " + was.str() +
                                 ", which this machine does not have: it is loaded to the CPU");
      }
    }
    plan.apply([this, made = plan.make(*entry, device)](std::vector<std::string>&) { tensor_ = *made; });
  }

  // A variable that holds a tensor of another shape or dtype is assigned one as saved, or becomes undefined. If the
  // code's form is not the one that the run began with, the code was edited.
  void plan_other_form(RestorePlan& plan, const nlohmann::json* value) {
    const storage::TensorEntry* entry = plan.find_tensor(name());
    std::string began;
    if (value != nullptr && value->is_object()) began = value->value("began", "");
    if (entry != nullptr && began.empty()) began = describe(*entry);
    const std::string code = code_form_.empty() ? form() : code_form_;
    plan.apply([this, code](std::vector<std::string>&) { code_form_ = code; });
    if (plan.was_undefined(name())) {
      plan.apply([this](std::vector<std::string>&) { tensor_ = at::Tensor(); });
      return;
    }
    if (entry == nullptr || has_form_of(tensor_, *entry) || plan.stays(name())) return;
    const bool in_place = plan.resizes(name());
    if (!in_place && (plan.is_parameter(tensor_) || !plan.takes_other_form(name(), *entry, tensor_))) return;
    if (code != began) {
      plan.fit.notes.push_back(name() + " is " + code + " in the code and was " + began +
                               " when the run began: it takes the checkpoint's " + describe(*entry));
    }
    if (in_place) return;  // the plan itself does this, also for a module's tensors
    plan.apply([this, made = plan.make_instead_of(tensor_, *entry)](std::vector<std::string>&) {
      if (made->is_floating_point() || made->is_complex()) made->set_requires_grad(tensor_.requires_grad());
      tensor_ = *made;
    });
  }

  // Another shape or dtype can be restored if the tensor is resizable or no optimizer updates it.
  void require_form(const Capture& capture) const {
    if (!has_begun() || !tensor_.defined() || form() == code_form_) return;
    if (is_resizable() ? !code_form_.empty() : !capture.is_parameter(tensor_)) return;
    if (!code_form_.empty()) {
      throw_changed_form(name(), "it was " + code_form_ + " and is " + form() + ", and an optimizer updates it");
    }
    if (!capture.is_parameter(tensor_)) return;
    throw Error(storage::StatusCode::invalid,
                "'" + name() +
                    "' was undefined when the run began, and an optimizer updates it now: give it a tensor of any size "
                    "before the loop begins, and write " +
                    track_as_resizable(name()));
  }

  std::string form() const { return tensor_.defined() ? describe(tensor_) : ""; }

  // If the variable is undefined now, the code gives no flag.
  void plan_flag(RestorePlan& plan, const nlohmann::json* value) {
    const std::optional<bool> code = code_ ? code_ : flag();
    std::optional<bool> initial, saved;
    if (value != nullptr && value->is_object() && value->contains("requires_grad")) {
      saved = value->at("requires_grad").get<bool>();
      initial = value->value("initial", *saved);
    }
    plan.apply([this, code, initial, saved](std::vector<std::string>& notes) {
      code_ = code;
      if (!saved || !flag()) return;
      if (!code || *code == *initial) {
        tensor_.set_requires_grad(*saved);
      } else {
        tensor_.set_requires_grad(*code);
        if (*code == *saved) return;
        notes.push_back(name() + ": in the code it " + (*code ? "requires" : "does not require") +
                        " a gradient, unlike when the checkpoint's run began: the code wins");
      }
    });
  }

  // Empty if the tensor cannot require gradients, or is the result of a computation, which is not saved.
  std::optional<bool> flag() const {
    const bool has_flag =
        tensor_.defined() && (tensor_.is_floating_point() || tensor_.is_complex()) && tensor_.is_leaf();
    return has_flag ? std::optional(tensor_.requires_grad()) : std::nullopt;
  }

  at::Tensor& tensor_;
  std::optional<bool> code_;  // whether the code made it require gradients, once the run has begun
  std::string code_form_;     // the code's dtype and shape; empty: undefined
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_tensor(std::string name, at::Tensor& tensor) {
  return std::make_unique<TrackedTensor>(std::move(name), tensor);
}

}  // namespace holdfast
