#include "state/tracked_values.h"

#include <ATen/core/grad_mode.h>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {
namespace {

using storage::StatusCode;

/// JSON for a message, no longer than a line.
std::string excerpt(const nlohmann::json& json) {
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

class TrackedValue : public TrackedItem {
 public:
  TrackedValue(std::string name, detail::ValueAccess access)
      : TrackedItem(std::move(name)), access_(std::move(access)) {}

  void capture(Capture& capture) const override { capture.value(name(), access_.get()); }

  void plan(RestorePlan& plan) override {
    const auto saved = plan.need_value(name(), "a value");
    if (!saved) return;
    try {
      access_.misfit(*saved);
    } catch (const Error& error) {  // its message is a whole sentence
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
    plan.apply([this, value = *saved](std::vector<std::string>& notes) {
      access_.set(value);
      const std::string change = access_.change ? access_.change() : std::string();
      if (!change.empty()) notes.push_back("'" + name() + "': " + change);
    });
  }

 private:
  detail::ValueAccess access_;
};

/// "net" of the object "agent" is "agent.net"; a key without a name of its own contains the separator.
std::string joined(const std::string& name, const std::string& key) {
  const bool is_joined = key.empty() || key[0] == '.' || key[0] == ':';
  return name + (is_joined ? "" : ".") + key;
}

/// The digest of a value, with the columns that it may have in `tensors`.
std::string digest_text(const nlohmann::json& value, const std::map<std::string, at::Tensor>& tensors,
                        const std::string& key) {
  storage::DigestStream digest;
  const auto update = [&](const void* data, std::size_t bytes) {
    digest.update({static_cast<const std::byte*>(data), bytes});
  };
  const std::string text = value.dump();
  update(text.data(), text.size());
  for (auto column = tensors.lower_bound(key + ":"); column != tensors.end(); ++column) {
    if (!column->first.starts_with(key + ":")) break;
    const at::Tensor bytes = column->second.contiguous().cpu();
    update(bytes.const_data_ptr(), bytes.nbytes());
  }
  return digest.finish().hex();
}

/// Whether a saved value has the form below, and is not the value of a small container.
bool is_object_form(const nlohmann::json& value) {
  return value.is_object() && value.contains("values") && value.contains("tensors") && value.contains("undefined");
}

// value: {"values": {…}, "tensors": ["name", …], "undefined": ["name", …], "parts": ["name", …]}; tensor "x" is stored
// as "<name>.x". Parts are separate items, and "parts" is left out if there are none. If the object is one value
// without a name, as a small container is, that value is stored itself.
class TrackedObject : public TrackedItem {
 public:
  TrackedObject(std::string name, detail::ObjectAccess access)
      : TrackedItem(std::move(name)), access_(std::move(access)) {}

  bool add_parameters(std::set<const void*>&) const override { return !access_.may_be_optimizer; }

  std::vector<detail::StatePart> parts() const override {
    if (!access_.may_bear_parts) return {};
    State state = State::of_parts();
    access_.save(state);
    std::vector<detail::StatePart> parts = state.parts();
    for (detail::StatePart& part : parts) part.name = joined(name(), part.name);
    return parts;
  }

  void capture(Capture& capture) const override {
    State state;
    access_.save(state);
    const auto values = state.values();
    const auto tensors = state.tensors();
    if (capture.digests_generators()) {
      for (const std::string& key : state.engines()) {
        capture.generators[joined(name(), key)] = digest_text(values.at(key), tensors, key);
      }
    }
    if (tensors.empty() && state.parts().empty() && values.size() == 1 && values.begin()->first.empty() &&
        !is_object_form(values.begin()->second)) {
      capture.value(name(), values.begin()->second);
      return;
    }
    auto value = nlohmann::json{
        {"values", values}, {"tensors", nlohmann::json::array()}, {"undefined", nlohmann::json::array()}};
    for (const auto& [key, tensor] : tensors) {
      value[tensor.defined() ? "tensors" : "undefined"].push_back(key);
      if (tensor.defined()) capture.tensor(joined(name(), key), tensor, state.is_alike(key));
    }
    for (const detail::StatePart& part : state.parts()) value["parts"].push_back(part.name);
    capture.value(name(), value);
  }

  void plan(RestorePlan& plan) override {
    const auto value = plan.need_value(name(), "an object");
    if (!value) return;
    if (!is_object_form(*value) && access_.check) {
      try {
        access_.check(State::of_saved({}, {{"", *value}}, {}));
      } catch (const std::exception& error) {
        plan.differs(Difference::Kind::value, name(),
                     "cannot be set to the checkpoint's " + excerpt(*value) + ": " + error.what());
        return;
      }
    }
    try {
      for (int rank = 0; rank < plan.saved_ranks(); ++rank) expect_tensors(plan, rank);
      const int world_size = plan.place().world_size;
      const bool in_shares = access_.load_shares && plan.saved_ranks() != world_size;
      const Pending own = plan_state(plan, plan.place().rank);
      std::vector<Pending> others;  // ranks whose shares are this rank's now
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
                   "was saved as another kind of object than the program has under this name");
    }
  }

 private:
  using Pending = std::function<State()>;  // callable once the tensors were read

  // Counts what only another rank holds as expected. A rank may not have tracked the object at all.
  void expect_tensors(RestorePlan& plan, int rank) const {
    const nlohmann::json* value = plan.find_value(name(), rank);
    if (value == nullptr) return;
    const nlohmann::json saved = decode_non_finite(*value);
    if (!is_object_form(saved)) return;
    for (const std::string key : saved.at("tensors")) (void)plan.find_tensor(joined(name(), key), rank);
  }

  // The state that one saved rank held.
  Pending plan_state(RestorePlan& plan, int rank) const {
    const nlohmann::json saved = decode_non_finite(*plan.find_value(name(), rank));
    std::map<std::string, nlohmann::json> values;
    if (!is_object_form(saved)) {
      values.emplace("", saved);
      return [values] { return State::of_saved({}, values, {}); };
    }
    for (const auto& [key, value] : saved.at("values").items()) values.emplace(key, value);
    std::map<std::string, std::shared_ptr<at::Tensor>> tensors;
    for (const auto& key : saved.at("undefined")) {
      tensors.emplace(key.get<std::string>(), std::make_shared<at::Tensor>());
    }
    for (const std::string key : saved.at("tensors")) {
      if (const auto* entry = plan.need_tensor(joined(name(), key), "named by the saved object", rank)) {
        tensors.emplace(key, plan.make(*entry));
      }
    }
    std::set<std::string> parts;
    if (saved.contains("parts")) parts = saved.at("parts").get<std::set<std::string>>();
    return [values, tensors, parts] {
      std::map<std::string, at::Tensor> loaded;
      for (const auto& [key, tensor] : tensors) loaded.emplace(key, *tensor);
      return State::of_saved(std::move(loaded), values, parts);
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

  detail::ObjectAccess access_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_value(std::string name, detail::ValueAccess access) {
  return std::make_unique<TrackedValue>(std::move(name), std::move(access));
}

std::unique_ptr<TrackedItem> make_tracked_object(std::string name, detail::ObjectAccess access) {
  return std::make_unique<TrackedObject>(std::move(name), std::move(access));
}

}  // namespace holdfast
