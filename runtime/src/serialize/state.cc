#include "holdfast/runtime/serialize/state.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "tensors/tensor_form.h"

namespace holdfast {

using storage::StatusCode;

struct State::Contents {
  std::map<std::string, at::Tensor> tensors;
  std::set<std::string> alike;  // names of tensors
  std::map<std::string, nlohmann::json> values;
  std::vector<detail::StatePart> parts;
  std::set<std::string> engines;  // names of values
  bool takes_only_parts = false;
  std::set<std::string> saved_parts;
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

[[noreturn]] void throw_taken(const std::string& key) {
  throw Error(StatusCode::invalid, "save() put '" + key + "' twice: give each part a name of its own");
}

constexpr std::size_t kLongJson = 4096;

/// The approximate length of its text, counted up to kLongJson.
std::size_t length_of(const nlohmann::json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().size();
  std::size_t length = 4;
  if (!value.is_structured()) return length;
  for (const auto& item : value.items()) {
    length += item.key().size() + length_of(item.value());
    if (length > kLongJson) break;
  }
  return length;
}

bool is_long(const nlohmann::json& value) { return length_of(value) > kLongJson; }

}  // namespace

State::State() : contents_(std::make_shared<Contents>()) {}

State State::of_parts() {
  State state;
  state.contents_->takes_only_parts = true;
  return state;
}

State State::of_saved(std::map<std::string, at::Tensor> tensors, std::map<std::string, nlohmann::json> values,
                      std::set<std::string> parts) {
  State state;
  state.contents_->tensors = std::move(tensors);
  state.contents_->values = std::move(values);
  state.contents_->saved_parts = std::move(parts);
  return state;
}

State State::nested(const std::string& name) const {
  State view = *this;
  view.prefix_ = prefix_ + name + ".";
  return view;
}

bool State::has(const std::string& name) const {
  const std::string key = prefix_ + name;
  return contents_->tensors.contains(key) || contents_->values.contains(key) ||
         !below(contents_->tensors, key + ".").empty() || !below(contents_->values, key + ".").empty() ||
         contents_->saved_parts.contains(key) ||
         std::any_of(contents_->saved_parts.begin(), contents_->saved_parts.end(),
                     [&](const std::string& part) { return part.starts_with(key + "."); });
}

std::map<std::string, at::Tensor> State::tensors() const { return below(contents_->tensors, prefix_); }
std::map<std::string, nlohmann::json> State::values() const { return below(contents_->values, prefix_); }

bool State::is_alike(const std::string& name) const { return contents_->alike.contains(prefix_ + name); }

const std::vector<detail::StatePart>& State::parts() const { return contents_->parts; }
const std::set<std::string>& State::engines() const { return contents_->engines; }
void State::note_engine(const std::string& name) { contents_->engines.insert(prefix_ + name); }
bool State::takes_only_parts() const { return contents_->takes_only_parts; }
void State::add_part(detail::StatePart part) { contents_->parts.push_back(std::move(part)); }

void State::require_name(const std::string& name) const {
  if (name.empty()) {
    throw Error(StatusCode::invalid, "save() put something under an empty name" +
                                         (prefix_.empty() ? std::string() : " in '" + prefix_ + "'") +
                                         ": give each part a name of its own");
  }
}

void State::require_part(const std::string& name) const {
  if (contents_->saved_parts.contains(prefix_ + name)) return;
  throw Error(StatusCode::misfit, "the checkpoint holds no part '" + prefix_ + name + "' that load() asks for");
}

bool State::has_value(const std::string& name) const { return contents_->values.contains(prefix_ + name); }

void State::put_tensor(const std::string& name, const at::Tensor& tensor, bool is_alike) {
  if (takes_only_parts()) return;
  const std::string key = prefix_ + name;
  if (contents_->values.contains(key) || !contents_->tensors.emplace(key, tensor).second) throw_taken(key);
  if (is_alike) contents_->alike.insert(key);
}

void State::put_value(const std::string& name, nlohmann::json value) {
  if (takes_only_parts()) return;
  const std::string key = prefix_ + name;
  if (contents_->tensors.contains(key) || contents_->values.contains(key)) throw_taken(key);
  if (is_long(value) || is_columns(value)) {
    detail::ColumnWriter column;
    column.json(std::move(value));
    column.put_to(*this, name);
  } else {
    contents_->values.emplace(key, std::move(value));
  }
}

void State::put_raw(const std::string& name, nlohmann::json value) {
  if (!contents_->values.emplace(prefix_ + name, std::move(value)).second) throw_taken(prefix_ + name);
}

const nlohmann::json* State::raw(const std::string& name) const {
  const auto found = contents_->values.find(prefix_ + name);
  return found == contents_->values.end() ? nullptr : &found->second;
}

const at::Tensor* State::find_tensor(const std::string& name) const {
  const auto found = contents_->tensors.find(prefix_ + name);
  return found == contents_->tensors.end() ? nullptr : &found->second;
}

bool State::is_columns(const nlohmann::json& value) {
  return value.is_object() && value.size() == 2 && value.contains("columns") && value.contains("arrays");
}

bool State::put_small(const std::string& name, nlohmann::json value) {
  if (!is_utf8(value)) return false;
  put_value(name, std::move(value));
  return true;
}

void State::absorb(const std::string& name, const State& other) {
  for (const auto& [key, tensor] : other.tensors()) put_tensor(name + key, tensor, other.is_alike(key));
  for (const auto& [key, value] : other.values()) {
    if (!contents_->values.emplace(prefix_ + name + key, value).second) throw_taken(prefix_ + name + key);
  }
}

const at::Tensor& State::tensor(const std::string& name) const {
  const at::Tensor* const found = find_tensor(name);
  if (found == nullptr) {
    throw Error(StatusCode::misfit, "the checkpoint holds no tensor '" + prefix_ + name + "' that load() asks for");
  }
  return *found;
}

nlohmann::json State::value(const std::string& name) const {
  const nlohmann::json* const found = raw(name);
  if (found == nullptr) {
    throw Error(StatusCode::misfit, "the checkpoint holds no value '" + prefix_ + name + "' that load() asks for");
  }
  if (!is_columns(*found)) return *found;
  detail::ColumnReader column(*this, name);
  return column.json();
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
