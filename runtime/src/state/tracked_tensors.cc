#include "state/tracked_tensors.h"

#include <ATen/Context.h>
#include <torch/cuda.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/text.h"
#include "libtorch/module_flags.h"
#include "libtorch/module_tensors.h"

namespace holdfast {
namespace {

using storage::StatusCode;

/// Empty if the name is not a device's.
std::optional<at::Device> device_of(const std::string& name) {
  try {
    return at::Device(name);
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

using Forms = std::vector<std::pair<std::string, TensorForm>>;  // by name, in a module's order

Forms forms_of(std::span<const NamedTensor> tensors) {
  Forms forms;
  forms.reserve(tensors.size());
  for (const NamedTensor& named : tensors) forms.emplace_back(named.name, form_of(named.tensor));
  return forms;
}

constexpr std::size_t kShown = 3;  // tensors of a module in a sentence

/// "a, b and 2 more"
std::string listed(const std::vector<std::string>& all) {
  std::string text;
  for (std::size_t i = 0; i < all.size() && i < kShown; ++i) text += (i ? ", " : "") + all[i];
  return all.size() > kShown ? text + " and " + std::to_string(all.size() - kShown) + " more" : text;
}

std::map<std::string, const TensorForm*> by_name(const Forms& forms) {
  std::map<std::string, const TensorForm*> found;
  for (const auto& [name, form] : forms) found.emplace(name, &form);
  return found;
}

bool are_forms_of(const Forms& forms, std::span<const NamedTensor> tensors) {
  return std::equal(forms.begin(), forms.end(), tensors.begin(), tensors.end(),
                    [](const auto& form, const auto& named) {
                      return form.second.dtype == named.tensor.scalar_type() &&
                             named.tensor.sizes() == at::IntArrayRef(form.second.shape) && form.first == named.name;
                    });
}

/// The differences between the forms that a run began with and those now, one clause each.
std::vector<std::string> changes_of(const Forms& began, std::span<const NamedTensor> now) {
  std::map<std::string, const TensorForm*> before = by_name(began);
  std::vector<std::string> changes;
  for (const NamedTensor& named : now) {
    const auto found = before.find(named.name);
    if (found == before.end()) {
      changes.push_back(named.name + " (" + describe(named.tensor) + ") is new");
      continue;
    }
    if (!(*found->second == form_of(named.tensor))) {
      changes.push_back(named.name + " was " + describe(*found->second) + " and is " + describe(named.tensor));
    }
    before.erase(found);
  }
  for (const auto& [name, form] : before) changes.push_back(name + " (" + describe(*form) + ") is gone");
  return changes;
}

[[noreturn]] void refuse_change(const std::string& name, const std::string& change) {
  throw Error(StatusCode::invalid,
              "'" + name + "' is not what it was when the run began: " + change +
                  ". A program that begins as this one did could not resume from such a version. Make the change "
                  "before the loop begins, or, where the program changes it while it trains, write " +
                  track_as_resizable(name));
}

class TrackedModule : public TrackedItem {
 public:
  TrackedModule(std::string name, const void* variable, ObjectReference<torch::nn::Module> module)
      : TrackedItem(std::move(name)), module_(std::move(module)) {
    const torch::nn::Module& now = module_now();
    if (variable == dynamic_cast<const void*>(&now)) owner_ = now.weak_from_this();
    is_owned_ = !owner_.expired();
  }

  const void* object() const override { return module_.get(); }

  void add_names(TensorNames& names) const override {
    const torch::nn::Module& module = module_now();
    const std::string prefix = name() + ".";
    each_parameter(module, [&](const std::string& path, const at::Tensor& parameter) {
      names.add(prefix + path, parameter, /*is_alike=*/true);
    });
    each_buffer(module, [&](const std::string& path, const at::Tensor& buffer) {
      names.add(prefix + path, buffer, /*is_alike=*/false);
    });
  }

  void begin(const TensorNames& names) override {
    code_ = flags_of(module_now());
    code_forms_ = forms_of(names.of(name()));
  }

  void capture(Capture& capture) const override {
    const auto tensors = capture.names().of(name());
    const bool has_changed = code_forms_ && !are_forms_of(*code_forms_, tensors);
    if (has_changed && !is_resizable()) refuse_change(name(), listed(changes_of(*code_forms_, tensors)));
    const ModuleFlags flags = flags_of(module_now());
    nlohmann::json value = encode(flags);
    if (code_ && *code_ != flags) {
      const ModuleFlags initial = overlaid(flags, *code_);
      if (initial != flags) value["initial"] = encode(initial);
    }
    if (has_changed) {
      const auto began = by_name(*code_forms_);
      for (const NamedTensor& named : tensors) {
        const auto form = began.find(named.name);
        if (form == began.end() || *form->second == form_of(named.tensor)) continue;
        value["began"][named.name] = describe(*form->second);
      }
    }
    capture.value(name(), std::move(value));
  }

  void plan(RestorePlan& plan) override {
    plan_forms(plan);
    plan_flags(plan);
  }

 private:
  // If the code gives a tensor another shape than the run began with, the code was edited.
  void plan_forms(RestorePlan& plan) {
    const auto tensors = plan.names().of(name());
    const nlohmann::json* value = plan.find_value(name());
    std::map<std::string, const TensorForm*> code_forms;
    if (code_forms_) code_forms = by_name(*code_forms_);
    std::vector<std::string> edits;
    for (const NamedTensor& named : tensors) {
      if (!plan.resizes(named.name)) continue;
      const storage::TensorEntry& entry = *plan.find_tensor(named.name);
      const auto code_form = code_forms.find(named.name);
      const std::string code = code_form != code_forms.end() ? describe(*code_form->second) : describe(named.tensor);
      std::string began = describe(entry);
      if (value != nullptr && value->is_object() && value->contains("began")) {
        began = value->at("began").value(named.name, began);
      }
      if (code != began) edits.push_back(named.name + " is " + code + " in the code and was " + began);
    }
    if (!edits.empty()) {
      plan.fit.notes.push_back(listed(edits) + " when the run began: the checkpoint's shapes and dtypes are taken");
    }
    if (!code_forms_) {
      plan.apply([this, forms = forms_of(tensors)](std::vector<std::string>&) { code_forms_ = forms; });
    }
  }

  void plan_flags(RestorePlan& plan) {
    const ModuleFlags now = flags_of(module_now());
    // Once the run has begun, the module's flags may differ from the code's.
    const ModuleFlags code = code_ ? overlaid(now, *code_) : now;
    const nlohmann::json* value = plan.find_value(name());
    if (value == nullptr) {  // the version is older than saved flags
      plan.apply([this, code](std::vector<std::string>&) { code_ = code; });
      return;
    }
    try {
      const ModuleFlags saved = decode_flags(*value, now);
      const ModuleFlags initial = value->contains("initial") ? decode_flags(value->at("initial"), now) : saved;
      plan.apply([this, code, initial, saved](std::vector<std::string>& notes) {
        const RestoredFlags restored = restore_flags(name(), code, initial, saved);
        set_flags(module_now(), restored.flags);
        code_ = code;
        notes.insert(notes.end(), restored.notes.begin(), restored.notes.end());
      });
    } catch (const nlohmann::json::exception&) {
      plan.differs(Difference::Kind::value, name(), "is a module in the program and something else in the checkpoint");
    }
  }

  torch::nn::Module& module_now() const {
    if (is_owned_ && owner_.expired()) {
      throw Error(StatusCode::invalid, "'" + name() +
                                           "' was tracked as an object that a shared_ptr held, and is gone: track the "
                                           "pointer, which may be given another module, instead of what it points to");
    }
    return held_by(module_, "module", name());
  }

  const ObjectReference<torch::nn::Module> module_;
  std::weak_ptr<const torch::nn::Module> owner_;  // of the object itself, if the object is tracked
  bool is_owned_ = false;
  std::optional<ModuleFlags> code_;  // as the code gave them, once the run has begun
  std::optional<Forms> code_forms_;  // likewise
};

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
      plan.differs(Difference::Kind::value, name(), "is a tensor in the program and something else in the checkpoint");
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
        plan.fit.notes.push_back(name() + " was on " + was.str() + ", which is not here: it is loaded to the CPU");
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
      refuse_change(name(), "it was " + code_form_ + " and is " + form() + ", and an optimizer updates it");
    }
    if (!capture.is_parameter(tensor_)) return;
    throw Error(StatusCode::invalid,
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
        notes.push_back(name() + ": code says it " + (*code ? "requires" : "does not require") +
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

at::Tensor state_of(const at::Generator& generator) {
  at::Generator handle = generator;
  const std::lock_guard<std::mutex> lock(handle.mutex());
  return handle.get_state();
}

void set_state_of(const at::Generator& generator, const at::Tensor& state) {
  at::Generator handle = generator;
  const std::lock_guard<std::mutex> lock(handle.mutex());
  handle.set_state(state);
}

void plan_generator(RestorePlan& plan, const std::string& name, const storage::TensorEntry& entry,
                    const at::Generator& generator) {
  if (!plan.matches(name, entry, state_of(generator))) return;
  if (plan.is_of_other_ranks(name)) {
    plan.apply([generator, seed = plan.fresh_seed(name)](std::vector<std::string>&) {
      at::Generator handle = generator;
      const std::lock_guard<std::mutex> lock(handle.mutex());
      handle.set_current_seed(seed);
    });
    return;
  }
  plan.apply([generator, made = plan.make(entry)](std::vector<std::string>&) { set_state_of(generator, *made); });
}

class TrackedGenerator : public TrackedItem {
 public:
  TrackedGenerator(std::string name, at::Generator& generator) : TrackedItem(std::move(name)), generator_(generator) {
    require_defined();
  }

  void capture(Capture& capture) const override {
    require_defined();
    capture.tensor(name(), state_of(generator_), /*is_alike=*/false);
  }

  void plan(RestorePlan& plan) override {
    require_defined();
    if (const auto* entry = plan.need_tensor(name(), "a random generator")) {
      plan_generator(plan, name(), *entry, generator_);
    }
  }

 private:
  void require_defined() const {
    if (!generator_.defined()) {
      throw Error(StatusCode::invalid,
                  "generator '" + name() + "' is undefined: make it first, as with at::detail::createCPUGenerator()");
    }
  }

  at::Generator& generator_;
};

// With several ranks, each computes on one device, which is its "cuda0" whatever its number on this host.
class DefaultGenerators : public TrackedItem {
 public:
  explicit DefaultGenerators(const RankPlace& place) : TrackedItem("generator"), place_(place) {}

  void capture(Capture& capture) const override {
    capture.tensor("generator.cpu", state_of(at::globalContext().defaultGenerator(at::kCPU)), /*is_alike=*/false);
    for (int i = 0; i < devices(); ++i) capture.tensor(cuda_name(i), state_of(cuda(i)), /*is_alike=*/false);
  }

  void plan(RestorePlan& plan) override {
    if (const auto* entry = plan.need_tensor("generator.cpu", "LibTorch's CPU generator")) {
      plan_generator(plan, "generator.cpu", *entry, at::globalContext().defaultGenerator(at::kCPU));
    }
    for (int i = 0; i < devices(); ++i) {
      if (const auto* entry = plan.find_tensor(cuda_name(i))) {
        plan_generator(plan, cuda_name(i), *entry, cuda(i));
      } else {
        plan.fit.notes.push_back("the checkpoint holds no " + cuda_name(i) +
                                 ": that device's generator stays as it is");
      }
    }
    // Saved generators are numbered without gaps.
    for (int i = devices(); plan.find_tensor(cuda_name(i)); ++i) {
      plan.fit.notes.push_back(cuda_name(i) +
                               " is left unread: " + (place_.world_size > 1 ? "this rank" : "this machine") + " has " +
                               std::to_string(devices()) + (devices() == 1 ? " CUDA device" : " CUDA devices"));
    }
  }

 private:
  int devices() const {
    if (place_.world_size > 1) return place_.device.is_cuda() ? 1 : 0;
    return static_cast<int>(torch::cuda::device_count());
  }
  static std::string cuda_name(int index) { return "generator.cuda" + std::to_string(index); }
  at::Generator cuda(int index) const {
    return at::globalContext().defaultGenerator(
        place_.world_size > 1 ? place_.device : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index)));
  }

  const RankPlace& place_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_module(std::string name, const void* variable,
                                                 ObjectReference<torch::nn::Module> module) {
  return std::make_unique<TrackedModule>(std::move(name), variable, std::move(module));
}

std::unique_ptr<TrackedItem> make_tracked_tensor(std::string name, at::Tensor& tensor) {
  return std::make_unique<TrackedTensor>(std::move(name), tensor);
}

std::unique_ptr<TrackedItem> make_tracked_generator(std::string name, at::Generator& generator) {
  return std::make_unique<TrackedGenerator>(std::move(name), generator);
}

std::unique_ptr<TrackedItem> make_default_generators(const RankPlace& place) {
  return std::make_unique<DefaultGenerators>(place);
}

}  // namespace holdfast
