#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "exact_json.h"
#include "holdfast/runtime/serialize/columns.h"
#include "holdfast/runtime/serialize/state.h"
#include "serialize/column_numbers.h"
#include "serialize/column_tree.h"
#include "serialize/growing_bytes.h"

namespace holdfast::detail {

using c10::ScalarType;

namespace {

constexpr std::size_t kInManifest = 256;  // largest array that stays there, in bytes

at::Tensor to_tensor(std::shared_ptr<GrowingBytes> bytes, ScalarType type, std::vector<std::int64_t> shape) {
  const at::TensorOptions options(type);
  if (bytes->size() == 0) return at::empty(shape, options);
  void* const data = bytes->data();
  return at::from_blob(
      data, shape, [bytes = std::move(bytes)](void*) {}, options);
}

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
      for (std::size_t i = 0; i < count; ++i)
        values.push_back(number_to_json(type_, bytes_->data() + i * width_of(type_)));
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

}  // namespace holdfast::detail
