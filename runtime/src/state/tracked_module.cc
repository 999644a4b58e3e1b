#include "state/tracked_module.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "libtorch/module_flags.h"
#include "libtorch/module_tensors.h"

namespace holdfast {
namespace {

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

class TrackedModule : public TrackedItem {
 public:
  TrackedModule(std::string name, const void* variable, detail::ObjectReference<torch::nn::Module> module)
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
    if (has_changed && !is_resizable()) throw_changed_form(name(), listed(changes_of(*code_forms_, tensors)));
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
      plan.differs(Difference::Kind::value, name(),
                   "is a module in the program, but another kind of object in the checkpoint");
    }
  }

  torch::nn::Module& module_now() const {
    if (is_owned_ && owner_.expired()) {
      throw Error(storage::StatusCode::invalid,
                  "'" + name() +
                      "' was tracked as an object that a shared_ptr held, and that object no longer exists: track the "
                      "pointer, which may be given another module, instead of what it points to");
    }
    return held_by(module_, "module", name());
  }

  const detail::ObjectReference<torch::nn::Module> module_;
  std::weak_ptr<const torch::nn::Module> owner_;  // of the object itself, if the object is tracked
  bool is_owned_ = false;
  std::optional<ModuleFlags> code_;  // as the code gave them, once the run has begun
  std::optional<Forms> code_forms_;  // likewise
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_module(std::string name, const void* variable,
                                                 detail::ObjectReference<torch::nn::Module> module) {
  return std::make_unique<TrackedModule>(std::move(name), variable, std::move(module));
}

}  // namespace holdfast
