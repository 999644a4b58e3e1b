#include "holdfast/runtime/serialize/columns.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/serialize/state.h"
#include "serialize/growing_bytes.h"

namespace holdfast {

using c10::ScalarType;
using storage::StatusCode;

namespace {

constexpr std::size_t kInManifest = 256;  // largest array that stays there, in bytes

std::size_t width_of(ScalarType type) { return c10::elementSize(type); }

/// Converts whole numbers; false if one does not fit.
template <class From, class To>
bool convert(const From* from, To* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
      if (!std::in_range<To>(from[i])) return false;
    }
    to[i] = static_cast<To>(from[i]);
  }
  return true;
}

/// Calls `use` with a number of the type; false if it is not an integer type.
template <class Use>
bool with_integer(ScalarType type, Use use) {
  switch (type) {
    case ScalarType::Char:
      use(std::int8_t{});
      return true;
    case ScalarType::Byte:
      use(std::uint8_t{});
      return true;
    case ScalarType::Short:
      use(std::int16_t{});
      return true;
    case ScalarType::UInt16:
      use(std::uint16_t{});
      return true;
    case ScalarType::Int:
      use(std::int32_t{});
      return true;
    case ScalarType::UInt32:
      use(std::uint32_t{});
      return true;
    case ScalarType::Long:
      use(std::int64_t{});
      return true;
    case ScalarType::UInt64:
      use(std::uint64_t{});
      return true;
    default:
      return false;
  }
}

/// Whether JSON represents numbers of this type exactly: a float's NaN would lose bits.
bool has_exact_json(ScalarType type) {
  return type == ScalarType::Bool || type == ScalarType::Double || with_integer(type, [](auto) {});
}

/// The value at `from`, of a type that has_exact_json().
nlohmann::json to_json(ScalarType type, const std::byte* from) {
  nlohmann::json value;
  const auto read = [&](auto x) {
    std::memcpy(&x, from, sizeof x);
    value = x;
  };
  if (type == ScalarType::Bool) {
    read(bool{});
  } else if (type == ScalarType::Double) {
    read(double{});
  } else {
    with_integer(type, read);
  }
  return value;
}

enum class Fits { yes, out_of_range, other_type };

Fits convert(ScalarType saved, const void* from, ScalarType wanted, void* to, std::size_t count) {
  if (saved == wanted) {
    if (count > 0) std::memcpy(to, from, count * width_of(saved));
    return Fits::yes;
  }
  if (saved == ScalarType::Float && wanted == ScalarType::Double) {
    convert(static_cast<const float*>(from), static_cast<double*>(to), count);
    return Fits::yes;
  }
  bool in_range = true;
  const bool are_integers = with_integer(saved, [&](auto x) {
    const bool known = with_integer(wanted, [&](auto y) {
      in_range = convert(static_cast<const decltype(x)*>(from), static_cast<decltype(y)*>(to), count);
    });
    if (!known) in_range = false;
  });
  if (!are_integers || !with_integer(wanted, [](auto) {})) return Fits::other_type;
  return in_range ? Fits::yes : Fits::out_of_range;
}

at::Tensor to_tensor(std::shared_ptr<GrowingBytes> bytes, ScalarType type, std::vector<std::int64_t> shape) {
  const at::TensorOptions options(type);
  if (bytes->size() == 0) return at::empty(shape, options);
  void* const data = bytes->data();
  return at::from_blob(
      data, shape, [bytes = std::move(bytes)](void*) {}, options);
}

/// The suffix that a child's name adds to its column's name.
std::string suffix_of(const char* name) { return name[0] == ':' ? name : std::string(".") + name; }

/// The column of that name, or null. Names are usually the same literals in the same order: `next` is the expected
/// index.
template <class Column>
Column* find_child(const std::vector<std::pair<const char*, std::unique_ptr<Column>>>& children, const char* name,
                   std::size_t& next) {
  std::size_t at = next < children.size() ? next : 0;
  for (std::size_t i = 0; i < children.size(); ++i) {
    const auto& [known, column] = children[at];
    if (++at == children.size()) at = 0;
    if (known == name || std::strcmp(known, name) == 0) {
      next = at;
      return column.get();
    }
  }
  return nullptr;
}

std::string describe(ScalarType type) { return c10::toString(type); }

}  // namespace

ColumnWriter::ColumnWriter() = default;
ColumnWriter::~ColumnWriter() = default;

ColumnWriter& ColumnWriter::child(const char* name) {
  if (auto* const column = find_child(children_, name, next_child_)) return *column;
  return *children_.emplace_back(name, std::make_unique<ColumnWriter>()).second;
}

void ColumnWriter::numbers(ScalarType type, const void* data, std::size_t count, std::size_t width) {
  if (!bytes_) {
    type_ = type;
    width_ = width;
    bytes_ = std::make_shared<GrowingBytes>();
  }
  bytes_->append(data, count * width_of(type));
}

State ColumnWriter::object() {
  if (!objects_) objects_ = std::make_unique<State>();
  return objects_->nested("." + std::to_string(object_count_++));
}

bool ColumnWriter::is_small() const { return size_up_to(kInManifest) <= kInManifest; }

std::size_t ColumnWriter::size_up_to(std::size_t limit) const {
  if (objects_ || !tensors_.empty()) return limit + 1;
  std::size_t size = bytes_ ? bytes_->size() : 0;
  for (const auto& value : json_) {
    if (size > limit) break;
    size += value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).size();
  }
  for (const auto& [name, column] : children_) {
    if (size > limit) break;
    size += column->size_up_to(limit - size);
  }
  return size;
}

void ColumnWriter::put_to(State& state, const std::string& name) {
  nlohmann::json arrays = nlohmann::json::object();
  emit(state, name, "", arrays);
  state.put_raw(name, {{"columns", 1}, {"arrays", std::move(arrays)}});
}

void ColumnWriter::emit(State& state, const std::string& name, const std::string& suffix, nlohmann::json& arrays) {
  if (bytes_) {
    const std::size_t count = bytes_->size() / width_of(type_);
    if (has_exact_json(type_) && bytes_->size() <= kInManifest) {
      nlohmann::json values = nlohmann::json::array();
      for (std::size_t i = 0; i < count; ++i) values.push_back(to_json(type_, bytes_->data() + i * width_of(type_)));
      arrays[suffix] = std::move(values);
    } else {
      std::vector<std::int64_t> shape{static_cast<std::int64_t>(count)};
      if (width_ > 1 && count % width_ == 0) {
        shape = {static_cast<std::int64_t>(count / width_), static_cast<std::int64_t>(width_)};
      }
      state.put_tensor(name + suffix, to_tensor(std::move(bytes_), type_, std::move(shape)), /*is_alike=*/false);
    }
  }
  if (!tensors_.empty()) emit_tensors(state, name + suffix, suffix, arrays);
  if (!json_.empty()) {
    const std::string text = encode_non_finite(json_).dump();
    ColumnWriter column;
    column.numbers(ScalarType::Byte, text.data(), text.size());
    column.emit(state, name, suffix + ":json", arrays);
  }
  if (objects_) state.absorb(name + suffix, *objects_);
  for (auto& [child_name, column] : children_) {
    column->emit(state, name, suffix + suffix_of(child_name), arrays);
  }
}

// Emits one tensor if all have the same dtype and device: stacked if they also have the same shape, otherwise end to
// end. Otherwise each tensor has its own name.
void ColumnWriter::emit_tensors(State& state, const std::string& key, const std::string& suffix,
                                nlohmann::json& arrays) {
  const at::NoGradGuard no_grad;
  const at::Tensor& first = tensors_.front();
  const bool are_alike = std::all_of(tensors_.begin(), tensors_.end(), [&](const at::Tensor& tensor) {
    return tensor.defined() && tensor.layout() == at::kStrided && tensor.scalar_type() == first.scalar_type() &&
           tensor.device() == first.device() && tensor.dim() == first.dim();
  });
  if (!are_alike || tensors_.size() == 1) {
    arrays[suffix + ":tensors"] = tensors_.size();
    nlohmann::json devices = nlohmann::json::array();
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      devices.push_back(tensors_[i].defined() ? tensors_[i].device().str() : "cpu");
      state.put_tensor(key + "." + std::to_string(i), tensors_[i], /*is_alike=*/false);
    }
    arrays[suffix + ":devices"] = std::move(devices);
    return;
  }
  arrays[suffix + ":device"] = first.device().str();
  const bool have_one_shape = std::all_of(tensors_.begin(), tensors_.end(),
                                          [&](const at::Tensor& tensor) { return tensor.sizes() == first.sizes(); });
  if (have_one_shape) {
    state.put_tensor(key + ":stacked", at::stack(tensors_), /*is_alike=*/false);
    return;
  }
  ColumnWriter shapes;
  std::vector<at::Tensor> flat;
  flat.reserve(tensors_.size());
  for (const at::Tensor& tensor : tensors_) {
    shapes.numbers(ScalarType::Long, tensor.sizes().data(), static_cast<std::size_t>(tensor.dim()),
                   static_cast<std::size_t>(tensor.dim()));
    flat.push_back(tensor.reshape({-1}));
  }
  state.put_tensor(key + ":joined", at::cat(flat), /*is_alike=*/false);
  state.put_tensor(
      key + ":shapes",
      to_tensor(std::move(shapes.bytes_), ScalarType::Long, {static_cast<std::int64_t>(tensors_.size()), first.dim()}),
      /*is_alike=*/false);
}

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
    const Fits fits = convert(saved, from + next_number_ * width_of(saved), type, data, count);
    if (fits != Fits::yes) throw_other_type(describe(saved), type, fits == Fits::out_of_range);
  }
  next_number_ += count;
}

void ColumnReader::throw_other_type(const std::string& saved, ScalarType wanted, bool is_too_large) const {
  throw Error(StatusCode::misfit, "'" + full_name() + "' is " + saved + " in the checkpoint and " + describe(wanted) +
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
    const Fits fits = is_unsigned ? convert(ScalarType::UInt64, &large, type, to, 1)
                                  : convert(ScalarType::Long, &negative, type, to, 1);
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

}  // namespace holdfast
