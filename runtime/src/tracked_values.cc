#include "tracked_values.h"

#include <ATen/core/grad_mode.h>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

using storage::StatusCode;

/// JSON for a message: not longer than a line.
std::string excerpt(const nlohmann::json& json) {
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

class TrackedValue : public TrackedItem {
 public:
  TrackedValue(std::string name, ValueAccess access) : TrackedItem(std::move(name)), access_(std::move(access)) {}

  void capture(Capture& capture) const override { capture.value(name(), access_.get()); }

  void plan(Plan& plan) override {
    const auto saved = plan.need_value(name(), "a value");
    if (!saved) return;
    try {
      access_.misfit(*saved);
    } catch (const Error& error) {  // a sentence of its own
      plan.differs(Difference::Kind::value, name(), std::string("cannot be restored: ") + error.what());
      return;
    } catch (const std::exception& error) {
      plan.differs(Difference::Kind::value, name(),
                   "cannot be set to the checkpoint's " + excerpt(*saved) + ": it " + error.what());
      return;
    }
    if (access_.reseed && plan.is_of_other_ranks(name())) {
      plan.apply([this, seed = plan.fresh_seed(name())](std::vector<std::string>&) { access_.reseed(seed); });
      return;
    }
    plan.apply([this, value = *saved](std::vector<std::string>&) { access_.set(value); });
  }

 private:
  ValueAccess access_;
};

// value: {"values": {…}, "tensors": ["name", …], "undefined": ["name", …]}; tensor "x" is stored as "<name>.x".
class TrackedObject : public TrackedItem {
 public:
  TrackedObject(std::string name, std::function<void(State&)> save, std::function<void(const State&)> load)
      : TrackedItem(std::move(name)), save_(std::move(save)), load_(std::move(load)) {}

  void capture(Capture& capture) const override {
    State state;
    save_(state);
    auto value = nlohmann::json{
        {"values", state.values()}, {"tensors", nlohmann::json::array()}, {"undefined", nlohmann::json::array()}};
    for (const auto& [key, tensor] : state.tensors()) {
      value[tensor.defined() ? "tensors" : "undefined"].push_back(key);
      if (tensor.defined()) capture.tensor(name() + "." + key, tensor, /*is_alike=*/false);
    }
    capture.value(name(), value);
  }

  void plan(Plan& plan) override {
    const auto saved = plan.need_value(name(), "an object with save() and load()");
    if (!saved) return;
    try {
      State state;
      for (const auto& [key, value] : saved->at("values").items()) state.put(key, value);
      for (const auto& key : saved->at("undefined")) state.put(key.get<std::string>(), at::Tensor());
      std::map<std::string, std::shared_ptr<at::Tensor>> tensors;
      for (const std::string key : saved->at("tensors")) {
        if (const auto* entry = plan.need_tensor(name() + "." + key, "named by the saved object")) {
          tensors.emplace(key, plan.make(*entry));
        }
      }
      plan.apply([this, state, tensors = std::move(tensors)](std::vector<std::string>&) mutable {
        for (const auto& [key, tensor] : tensors) state.put(key, *tensor);
        load(state);
      });
    } catch (const nlohmann::json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "was saved as something other than an object with save() and load()");
    }
  }

 private:
  void load(const State& state) const {
    const at::NoGradGuard no_grad;
    try {
      load_(state);
    } catch (const Error& error) {
      throw Error(error.code(), "'" + name() + "' did not load: " + error.what());
    }
  }

  std::function<void(State&)> save_;
  std::function<void(const State&)> load_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_value(std::string name, ValueAccess access) {
  return std::make_unique<TrackedValue>(std::move(name), std::move(access));
}

std::unique_ptr<TrackedItem> make_tracked_object(std::string name, std::function<void(State&)> save,
                                                 std::function<void(const State&)> load) {
  return std::make_unique<TrackedObject>(std::move(name), std::move(save), std::move(load));
}

}  // namespace holdfast
