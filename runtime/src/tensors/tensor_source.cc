#include "tensors/tensor_source.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "holdfast/runtime/error.h"
#include "tensors/dtype.h"

namespace holdfast {
namespace {

constexpr std::int64_t kPieceBytes = 8 << 20;

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw Error(storage::StatusCode::unsupported, "tensor '" + name + "' cannot be saved: " + why);
}

}  // namespace

void require_storable(const std::string& name, const at::Tensor& tensor) {
  if (tensor.layout() != c10::kStrided) {
    refuse(name, "it is sparse; track a dense copy (to_dense()) or save its indices and values");
  }
  if (tensor.is_quantized() || !to_dtype(tensor.scalar_type())) {
    std::ostringstream dtype;
    dtype << tensor.scalar_type();
    refuse(name, "safetensors has no name for dtype " + dtype.str() +
                     "; keep it in another dtype (complex as two real tensors, quantized as its integers)");
  }
  if (tensor.is_meta()) refuse(name, "it is on the meta device and has no bytes; give it memory first (to_empty())");
  if (at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    refuse(name, "several of its elements share memory (expand()); track tensor.contiguous() instead");
  }
}

bool has_plain_bytes(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

at::Tensor as_bits(const at::Tensor& tensor) {
  switch (tensor.element_size()) {
    case 1:
      return tensor.view(c10::kByte);
    case 2:
      return tensor.view(c10::kShort);
    case 4:
      return tensor.view(c10::kInt);
    default:
      return tensor.view(c10::kLong);
  }
}

/// The row-major elements [begin_, end_) of one tensor, in host memory.
class CopyBuffer {
 public:
  std::span<const std::byte> at(const at::Tensor& tensor, std::int64_t element) {
    if (!tensor_.is_same(tensor) || element < begin_ || element >= end_) load(tensor, element);
    const std::int64_t width = static_cast<std::int64_t>(tensor.element_size());
    const auto* bytes = static_cast<const std::byte*>(staged_.const_data_ptr());
    return {bytes + (element - begin_) * width, static_cast<std::size_t>((end_ - element) * width)};
  }

 private:
  // Copies rows of the outermost dimension whose rows fit into a piece, from the row that holds `element` on.
  void load(const at::Tensor& tensor, std::int64_t element) {
    const at::NoGradGuard no_grad;
    const std::int64_t limit =
        std::max<std::int64_t>(1, kPieceBytes / static_cast<std::int64_t>(tensor.element_size()));
    at::Tensor view = tensor.detach();
    if (view.is_contiguous()) view = view.view({-1});
    std::int64_t row = view.numel();  // elements in one index of dimension 0
    std::int64_t first = 0;           // the view's first element within the tensor
    while (view.dim() > 0) {
      row /= view.size(0);
      const std::int64_t index = (element - first) / row;
      if (row <= limit) {
        const std::int64_t rows = std::min(view.size(0) - index, limit / row);
        view = view.narrow(0, index, rows);
        first += index * row;
        break;
      }
      view = view.select(0, index);
      first += index * row;
    }
    view = as_bits(view.resolve_conj().resolve_neg());
    if (!arena_.defined() || arena_.is_pinned() != view.is_cuda()) {
      arena_ = at::empty({kPieceBytes}, at::TensorOptions(c10::kByte).pinned_memory(view.is_cuda()));
    }
    staged_ = arena_.narrow(0, 0, view.numel() * static_cast<std::int64_t>(view.element_size()))
                  .view(view.scalar_type())
                  .view(view.sizes());
    staged_.copy_(view);
    tensor_ = tensor;
    begin_ = first;
    end_ = first + view.numel();
  }

  at::Tensor arena_;
  at::Tensor staged_;
  at::Tensor tensor_;
  std::int64_t begin_ = 0;
  std::int64_t end_ = 0;
};

std::shared_ptr<CopyBuffer> make_copy_buffer() { return std::make_shared<CopyBuffer>(); }

storage::TensorSource make_source(std::string name, const at::Tensor& tensor, std::shared_ptr<CopyBuffer> buffer) {
  require_storable(name, tensor);
  storage::TensorSource source;
  source.name = std::move(name);
  source.dtype = *to_dtype(tensor.scalar_type());
  source.shape = tensor.sizes().vec();
  if (has_plain_bytes(tensor)) {
    source.copy = [tensor](std::uint64_t offset, std::span<std::byte> into) {
      std::memcpy(into.data(), static_cast<const std::byte*>(tensor.const_data_ptr()) + offset, into.size());
    };
  } else {
    source.copy = [tensor, buffer = std::move(buffer)](std::uint64_t offset, std::span<std::byte> into) {
      const std::uint64_t width = tensor.element_size();
      while (!into.empty()) {
        const auto piece = buffer->at(tensor, static_cast<std::int64_t>(offset / width)).subspan(offset % width);
        const std::size_t count = std::min(piece.size(), into.size());
        std::memcpy(into.data(), piece.data(), count);
        into = into.subspan(count);
        offset += count;
      }
    };
  }
  return source;
}

}  // namespace holdfast
