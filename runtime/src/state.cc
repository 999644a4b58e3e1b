#include "holdfast/runtime/state.h"

#include <ATen/core/grad_mode.h>

#include <set>
#include <sstream>

#include "holdfast/runtime/error.h"

namespace holdfast {

using storage::StatusCode;

struct State::Contents {
  std::map<std::string, at::Tensor> tensors;
  std::set<std::string> alike;  // of tensors
  std::map<std::string, nlohmann::json> values;
};

namespace {

template <class Map>
Map below(const Map& map, const std::string& prefix) {
  Map found;
  for (auto it = map.lower_bound(prefix); it != map.end() && it->first.starts_with(prefix); ++it) {
    found.emplace(it->first.substr(prefix.size()), it->second);
  }
  return found;
}

std::string describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.scalar_type() << ' ' << tensor.sizes();
  return text.str();
}

}  // namespace

State::State() : contents_(std::make_shared<Contents>()) {}

State State::nested(const std::string& name) const {
  State view = *this;
  view.prefix_ = prefix_ + name + ".";
  return view;
}

bool State::has(const std::string& name) const {
  const std::string key = prefix_ + name;
  return contents_->tensors.contains(key) || contents_->values.contains(key) ||
         !below(contents_->tensors, key + ".").empty() || !below(contents_->values, key + ".").empty();
}

std::map<std::string, at::Tensor> State::tensors() const { return below(contents_->tensors, prefix_); }
std::map<std::string, nlohmann::json> State::values() const { return below(contents_->values, prefix_); }

bool State::is_alike(const std::string& name) const { return contents_->alike.contains(prefix_ + name); }

void State::put_tensor(const std::string& name, const at::Tensor& tensor, bool is_alike) {
  const std::string key = prefix_ + name;
  if (name.empty() || contents_->values.contains(key) || !contents_->tensors.emplace(key, tensor).second) {
    throw Error(StatusCode::invalid, "save() put '" + key + "' twice or under an empty name: give each part its own");
  }
  if (is_alike) contents_->alike.insert(key);
}

void State::put_value(const std::string& name, nlohmann::json value) {
  const std::string key = prefix_ + name;
  if (name.empty() || contents_->tensors.contains(key) || !contents_->values.emplace(key, std::move(value)).second) {
    throw Error(StatusCode::invalid, "save() put '" + key + "' twice or under an empty name: give each part its own");
  }
}

const at::Tensor& State::tensor(const std::string& name) const {
  const auto found = contents_->tensors.find(prefix_ + name);
  if (found == contents_->tensors.end()) {
    throw Error(StatusCode::misfit, "the checkpoint holds no tensor '" + prefix_ + name + "' that load() asks for");
  }
  return found->second;
}

const nlohmann::json& State::value(const std::string& name) const {
  const auto found = contents_->values.find(prefix_ + name);
  if (found == contents_->values.end()) {
    throw Error(StatusCode::misfit, "the checkpoint holds no value '" + prefix_ + name + "' that load() asks for");
  }
  return found->second;
}

void State::copy_tensor(const std::string& name, at::Tensor& into) const {
  const at::Tensor& loaded = tensor(name);
  if (!into.defined() || !loaded.defined()) {
    into = loaded;
    return;
  }
  if (into.sizes() != loaded.sizes() || into.scalar_type() != loaded.scalar_type()) {
    throw Error(StatusCode::misfit, "tensor '" + prefix_ + name + "' is " + describe(into) + " in the program and " +
                                        describe(loaded) + " in the checkpoint");
  }
  const at::NoGradGuard no_grad;
  into.copy_(loaded);
}

void State::throw_other_type(const std::string& name, const std::string& why) const {
  throw Error(StatusCode::misfit, "value '" + prefix_ + name + "' has another type in the checkpoint: " + why);
}

}  // namespace holdfast
