#include <ATen/ATen.h>

#include <cstring>
#include <span>
#include <utility>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/serialize/columns.h"
#include "holdfast/runtime/serialize/state.h"
#include "serialize/column_numbers.h"
#include "serialize/column_tree.h"

namespace holdfast::detail {

using c10::ScalarType;
using storage::StatusCode;

namespace {

std::string type_name(ScalarType type) { return c10::toString(type); }

}  // namespace

bool ColumnReader::is_there(const State& state, const std::string& name) {
  return state.raw(name) != nullptr && State::is_columns(*state.raw(name));
}

ColumnReader::ColumnReader(const State& state, const std::string& name)
    : state_(state), name_(name), arrays_(state.raw(name) ? &state.raw(name)->at("arrays") : nullptr) {}
ColumnReader::ColumnReader(const ColumnReader& parent, const std::string& suffix)
    : state_(parent.state_), name_(parent.name_), suffix_(suffix), arrays_(parent.arrays_) {}
ColumnReader::~ColumnReader() = default;

ColumnReader& ColumnReader::child(const char* name) {
  if (auto* const column = find_child(children_, name, next_child_)) return *column;
  return *children_.emplace_back(name, new ColumnReader(*this, suffix_ + suffix_of(name))).second;
}

std::string ColumnReader::full_name() const {
  const std::string name = state_.prefix_ + name_ + suffix_;
  return name.starts_with('.') ? name.substr(1) : name;
}

void ColumnReader::throw_missing(const std::string& what) const {
  throw Error(StatusCode::misfit, "the checkpoint holds no " + what + " '" + full_name() +
                                      "' that the program asks for: did the type change since it was saved?");
}

const at::Tensor* ColumnReader::array(const std::string& suffix) const { return state_.find_tensor(name_ + suffix); }

void ColumnReader::numbers(ScalarType type, void* data, std::size_t count) {
  if (arrays_ != nullptr && in_manifest_ == nullptr && !numbers_.defined()) {
    if (const auto found = arrays_->find(suffix_); found != arrays_->end()) {
      in_manifest_ = &*found;
    } else if (const at::Tensor* tensor = array(suffix_)) {
      numbers_ = tensor->reshape({-1});
    } else if (count == 0) {
      return;
    } else {
      throw_missing("column");
    }
  }
  const std::size_t there = in_manifest_ ? in_manifest_->size() : static_cast<std::size_t>(numbers_.numel());
  if (next_number_ + count > there) throw_missing("further element of the column");
  if (in_manifest_) {
    auto* to = static_cast<std::byte*>(data);
    for (std::size_t i = 0; i < count; ++i) from_json((*in_manifest_)[next_number_ + i], type, to + i * width_of(type));
  } else {
    const auto* from = static_cast<const std::byte*>(numbers_.const_data_ptr());
    const ScalarType saved = numbers_.scalar_type();
    const Fits fits = convert_numbers(saved, from + next_number_ * width_of(saved), type, data, count);
    if (fits != Fits::yes) throw_other_type(type_name(saved), type, fits == Fits::out_of_range);
  }
  next_number_ += count;
}

void ColumnReader::throw_other_type(const std::string& saved, ScalarType wanted, bool is_too_large) const {
  throw Error(StatusCode::misfit, "'" + full_name() + "' is " + saved + " in the checkpoint and " + type_name(wanted) +
                                      " in the program" +
                                      (is_too_large ? ", which cannot hold all of its numbers" : ""));
}

void ColumnReader::from_json(const nlohmann::json& value, ScalarType type, std::byte* to) const {
  const bool is_for_bool = type == ScalarType::Bool;
  if (value.is_boolean() && is_for_bool) {
    const bool x = value.get<bool>();
    std::memcpy(to, &x, sizeof x);
  } else if (value.is_number_integer() && !is_for_bool) {
    const bool is_unsigned = value.is_number_unsigned();
    const auto large = is_unsigned ? value.get<std::uint64_t>() : 0;
    const auto negative = is_unsigned ? 0 : value.get<std::int64_t>();
    const Fits fits = is_unsigned ? convert_numbers(ScalarType::UInt64, &large, type, to, 1)
                                  : convert_numbers(ScalarType::Long, &negative, type, to, 1);
    if (fits != Fits::yes) throw_other_type("a whole number", type, fits == Fits::out_of_range);
  } else if (value.is_number_float() && type == ScalarType::Double) {
    const double x = value.get<double>();
    std::memcpy(to, &x, sizeof x);
  } else {
    throw_other_type(value.type_name(), type, /*is_too_large=*/false);
  }
}

at::Tensor ColumnReader::tensor() {
  if (!has_tensors_) {
    open_tensors();
    has_tensors_ = true;
  }
  if (next_tensor_ == tensors_.size()) throw_missing("further tensor of");
  return tensors_[next_tensor_++];
}

void ColumnReader::open_tensors() {
  auto listed = [&](const char* what) { return arrays_->find(suffix_ + what); };
  auto device_of = [](const std::string& text) {
    const at::Device device(text);
    return device.is_cuda() && !at::hasCUDA() ? at::Device(at::kCPU) : device;
  };
  const auto none = arrays_->end();
  if (const auto count = listed(":tensors"); count != none) {
    const auto devices = listed(":devices");
    for (std::size_t i = 0; i < count->get<std::size_t>(); ++i) {
      const at::Tensor* tensor = array(suffix_ + "." + std::to_string(i));
      if (tensor == nullptr) throw_missing("tensor");
      tensors_.push_back(tensor->defined() ? tensor->to(device_of(devices->at(i))) : *tensor);
    }
    return;
  }
  const auto device = listed(":device");
  if (device == none) throw_missing("tensor");
  if (const at::Tensor* stacked = array(suffix_ + ":stacked")) {
    // Each has its own memory: in-place changes of one must not affect another, and one must not keep all of them
    // alive.
    for (const at::Tensor& tensor : stacked->unbind()) tensors_.push_back(tensor.to(device_of(*device)).clone());
    return;
  }
  const at::Tensor* joined = array(suffix_ + ":joined");
  const at::Tensor* shapes = array(suffix_ + ":shapes");
  if (joined == nullptr || shapes == nullptr) throw_missing("tensor");
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < shapes->size(0); ++i) {
    const std::span<const std::int64_t> row(shapes->const_data_ptr<std::int64_t>() + i * shapes->size(1),
                                            static_cast<std::size_t>(shapes->size(1)));
    std::int64_t count = 1;
    for (const std::int64_t extent : row) count *= extent;
    const at::Tensor flat = joined->narrow(0, begin, count);
    tensors_.push_back(flat.view(at::IntArrayRef(row.data(), row.size())).to(device_of(*device)).clone());
    begin += count;
  }
}

nlohmann::json ColumnReader::json() {
  if (json_.is_null()) {
    ColumnReader text(*this, suffix_ + ":json");
    std::string read;
    if (const auto found = arrays_->find(suffix_ + ":json"); found != arrays_->end()) {
      read.resize(found->size());
    } else if (const at::Tensor* tensor = array(suffix_ + ":json")) {
      read.resize(static_cast<std::size_t>(tensor->numel()));
    } else {
      throw_missing("value");
    }
    text.numbers(ScalarType::Byte, read.data(), read.size());
    json_ = decode_non_finite(nlohmann::json::parse(read));
  }
  if (next_json_ == json_.size()) throw_missing("further value of");
  return json_[next_json_++];
}

State ColumnReader::object() { return state_.nested(name_ + suffix_ + "." + std::to_string(next_object_++)); }

}  // namespace holdfast::detail
