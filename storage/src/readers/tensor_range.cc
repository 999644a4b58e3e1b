#include "holdfast/storage/readers/tensor_range.h"

#include <algorithm>
#include <cstring>

#include "readers/tensor_reading.h"

namespace holdfast::storage {
namespace {

/// Steps through the runs of a box: the stretches that are contiguous in the tensor. They are equally long, and their
/// order in the box is also their order in the tensor.
class Runs {
 public:
  Runs(const TensorEntry& tensor, const TensorPart& part) : part_(part), stride_(tensor.shape.size()) {
    const std::size_t dims = tensor.shape.size();
    // The box covers the dimensions from `inner` on completely, so its extent in the dimension before is contiguous.
    std::size_t inner = dims;
    while (inner > 0 && part.extent[inner - 1] == tensor.shape[inner - 1]) --inner;
    outer_ = inner > 0 ? inner - 1 : 0;
    stride_[dims - 1] = element_size(tensor.dtype);
    for (std::size_t i = dims; i-- > 1;) stride_[i - 1] = stride_[i] * static_cast<std::uint64_t>(tensor.shape[i]);
    bytes_ = static_cast<std::uint64_t>(part.extent[outer_]) * stride_[outer_];
    count_ = (part.end - part.begin) / bytes_;
    move_to(0);
  }

  /// Moves to the first run that ends behind byte `offset` of the tensor.
  void seek(std::uint64_t offset) {
    std::uint64_t first = 0, last = count_;
    while (first < last) {
      const std::uint64_t middle = first + (last - first) / 2;
      move_to(middle);
      if (at_ + bytes_ > offset) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    move_to(first);
  }
  void next() {
    ++number_;
    for (std::size_t i = outer_; i > 0 && ++index_[i - 1] == part_.extent[i - 1]; --i) index_[i - 1] = 0;
    place();
  }

  bool at_end() const { return number_ == count_; }
  std::uint64_t at() const { return at_; }  // in the tensor
  std::uint64_t in_file() const { return part_.begin + number_ * bytes_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  void move_to(std::uint64_t number) {
    number_ = number;
    index_.assign(outer_, 0);
    for (std::size_t i = outer_; i-- > 0;) {
      const auto extent = static_cast<std::uint64_t>(part_.extent[i]);
      index_[i] = static_cast<std::int64_t>(number % extent);
      number /= extent;
    }
    place();
  }
  void place() {
    at_ = static_cast<std::uint64_t>(part_.offset[outer_]) * stride_[outer_];
    for (std::size_t i = 0; i < outer_; ++i) {
      at_ += static_cast<std::uint64_t>(part_.offset[i] + index_[i]) * stride_[i];
    }
  }

  const TensorPart& part_;
  std::vector<std::uint64_t> stride_;  // bytes between neighbours in each dimension of the tensor
  std::size_t outer_ = 0;              // the dimensions before it are counted by `index_`
  std::uint64_t bytes_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t number_ = 0;
  std::vector<std::int64_t> index_;
  std::uint64_t at_ = 0;
};

/// Copies what a box holds of the range. Rows of a box are read through a buffer, because a row may have only a few
/// bytes.
Status read_box(const ObjectReader& file, const TensorEntry& tensor, const TensorPart& part, std::uint64_t offset,
                std::span<std::byte> into, std::vector<std::byte>& buffer) {
  const std::uint64_t range_end = offset + into.size();
  Runs runs(tensor, part);
  std::size_t used = 0;
  buffer.clear();
  for (runs.seek(offset); !runs.at_end() && runs.at() < range_end; runs.next()) {
    std::uint64_t at = std::max(runs.at(), offset);
    std::uint64_t in_file = runs.in_file() + (at - runs.at());
    std::uint64_t bytes = std::min(runs.at() + runs.bytes(), range_end) - at;
    while (bytes > 0) {
      if (used == buffer.size()) {
        // Not beyond the range's share of the box, which is at most the range itself.
        buffer.resize(std::min({kReadPieceBytes, part.end - in_file, range_end - at}));
        used = 0;
        if (Status status = file.read(in_file, buffer); !status) return status;
      }
      const std::size_t piece = std::min<std::uint64_t>(bytes, buffer.size() - used);
      std::memcpy(into.data() + (at - offset), buffer.data() + used, piece);
      used += piece;
      at += piece;
      in_file += piece;
      bytes -= piece;
    }
  }
  return {};
}

}  // namespace

Status read_tensor_range(const Files& files, const TensorEntry& tensor, std::uint64_t offset,
                         std::span<std::byte> into) {
  std::vector<std::byte> buffer;
  for (const TensorPart& part : tensor.parts) {
    if (part.begin == part.end) continue;
    const ObjectReader& file = *files[part.file];
    if (part.offset.empty()) return file.read(part.begin + offset, into);
    if (Status status = read_box(file, tensor, part, offset, into, buffer); !status) return status;
  }
  return {};
}

}  // namespace holdfast::storage
