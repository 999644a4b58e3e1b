#include "tracked_values.h"

#include <ATen/core/grad_mode.h>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/exact_json.h"

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
  TrackedObject(std::string name, ObjectAccess access) : TrackedItem(std::move(name)), access_(std::move(access)) {}

  bool add_parameters(std::set<const void*>&) const override { return false; }  // it may be an optimizer

  void capture(Capture& capture) const override {
    State state;
    access_.save(state);
    auto value = nlohmann::json{
        {"values", state.values()}, {"tensors", nlohmann::json::array()}, {"undefined", nlohmann::json::array()}};
    for (const auto& [key, tensor] : state.tensors()) {
      value[tensor.defined() ? "tensors" : "undefined"].push_back(key);
      if (tensor.defined()) capture.tensor(name() + "." + key, tensor, state.is_alike(key));
    }
    capture.value(name(), value);
  }

  void plan(Plan& plan) override {
    if (!plan.need_value(name(), "an object with save() and load()")) return;
    try {
      for (int rank = 0; rank < plan.saved_ranks(); ++rank) expect_tensors(plan, rank);
      const int world_size = plan.place().world_size;
      const bool in_shares = access_.load_shares && plan.saved_ranks() != world_size;
      const Pending own = plan_state(plan, plan.place().rank);
      std::vector<Pending> others;  // whose shares are this rank's now
      for (int rank = plan.place().rank + world_size; in_shares && rank < plan.saved_ranks(); rank += world_size) {
        if (plan.find_value(name(), rank) != nullptr) others.push_back(plan_state(plan, rank));
      }
      const bool has_own = plan.place().rank < plan.saved_ranks();
      plan.apply([this, in_shares, own, others, has_own](std::vector<std::string>&) {
        const State mine = own();
        std::vector<State> shares;
        if (has_own) shares.push_back(mine);
        for (const Pending& other : others) shares.push_back(other());
        load([&] { in_shares ? access_.load_shares(mine, shares) : access_.load(mine); });
      });
    } catch (const nlohmann::json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "was saved as something other than an object with save() and load()");
    }
  }

 private:
  using Pending = std::function<State()>;  // there once the tensors were read

  // So that what another rank alone holds is not unexpected. A rank may not have tracked it at all.
  void expect_tensors(Plan& plan, int rank) const {
    const nlohmann::json* value = plan.find_value(name(), rank);
    if (value == nullptr) return;
    const nlohmann::json saved = decode_non_finite(*value);
    for (const std::string key : saved.at("tensors")) (void)plan.find_tensor(name() + "." + key, rank);
  }

  // What one rank of before held.
  Pending plan_state(Plan& plan, int rank) const {
    const nlohmann::json saved = decode_non_finite(*plan.find_value(name(), rank));
    State state;
    for (const auto& [key, value] : saved.at("values").items()) state.put(key, value);
    for (const auto& key : saved.at("undefined")) state.put(key.get<std::string>(), at::Tensor());
    std::map<std::string, std::shared_ptr<at::Tensor>> tensors;
    for (const std::string key : saved.at("tensors")) {
      if (const auto* entry = plan.need_tensor(name() + "." + key, "named by the saved object", rank)) {
        tensors.emplace(key, plan.make(*entry));
      }
    }
    return [state, tensors = std::move(tensors)]() mutable {
      for (const auto& [key, tensor] : tensors) state.put(key, *tensor);
      return state;
    };
  }

  void load(const std::function<void()>& load) const {
    const at::NoGradGuard no_grad;
    try {
      load();
    } catch (const Error& error) {
      throw Error(error.code(), "'" + name() + "' did not load: " + error.what());
    }
  }

  ObjectAccess access_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_value(std::string name, ValueAccess access) {
  return std::make_unique<TrackedValue>(std::move(name), std::move(access));
}

std::unique_ptr<TrackedItem> make_tracked_object(std::string name, ObjectAccess access) {
  return std::make_unique<TrackedObject>(std::move(name), std::move(access));
}

}  // namespace holdfast
