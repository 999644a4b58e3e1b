#include "tensors/tensor_load.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <map>

#include "holdfast/runtime/error.h"
#include "tensors/dtype.h"
#include "tensors/tensor_source.h"

namespace holdfast {
namespace {

constexpr std::uint64_t kStagingBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kStagingAlignment = 64;  // aligns every dtype, and vector loads

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + kStagingAlignment - 1) / kStagingAlignment * kStagingAlignment;
}

/// The memory of the targets so far. Two tensors that overlap are views of each other: the second is staged, so that no
/// two threads write the same byte.
class ClaimedMemory {
 public:
  bool claim(const void* data, std::uint64_t bytes) {
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    const auto next = ends_.lower_bound(begin);  // by begin
    if (next != ends_.end() && next->first < begin + bytes) return false;
    if (next != ends_.begin() && std::prev(next)->second > begin) return false;
    if (bytes > 0) ends_.emplace(begin, begin + bytes);
    return true;
  }

 private:
  std::map<std::uintptr_t, std::uintptr_t> ends_;
};

void make_tensor(const LoadTarget& target) {
  if (target.tensor->defined()) return;
  const auto options = at::TensorOptions(to_scalar_type(target.entry->dtype)).device(target.device);
  *target.tensor = target.strides.empty() ? at::empty(target.entry->shape, options)
                                          : at::empty_strided(target.entry->shape, target.strides, options);
}

/// A stale graph that saved this tensor must fail in backward() instead of using the new values.
void note_changed(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

void copy_into(const at::Tensor& into, const at::Tensor& from) {
  if (into.is_conj() || into.is_neg()) {
    into.detach().copy_(from);
  } else {
    as_bits(into.detach()).copy_(as_bits(from));
  }
  note_changed(into);
}

class Staging {
 public:
  Staging(std::uint64_t bytes, bool pinned)
      : arena_(at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions(at::kByte).pinned_memory(pinned))) {}

  bool has_room(std::uint64_t bytes) const { return used_ + bytes <= static_cast<std::uint64_t>(arena_.numel()); }

  void add(const LoadTarget& target) {
    auto* const bytes = static_cast<std::byte*>(arena_.mutable_data_ptr()) + used_;
    targets_.push_back({target.entry->name, {bytes, target.entry->bytes()}});
    filled_.push_back(&target);
    used_ += aligned(target.entry->bytes());
  }

  void read(const storage::VersionReader& version, const storage::ReadOptions& options) {
    detail::throw_if(version.read(targets_, options));
    for (std::size_t i = 0; i < filled_.size(); ++i) {
      copy_into(*filled_[i]->tensor, at::from_blob(targets_[i].into.data(), filled_[i]->entry->shape,
                                                   at::TensorOptions(to_scalar_type(filled_[i]->entry->dtype))));
    }
    targets_.clear();
    filled_.clear();
    used_ = 0;
  }

 private:
  at::Tensor arena_;
  std::uint64_t used_ = 0;
  std::vector<storage::TensorTarget> targets_;
  std::vector<const LoadTarget*> filled_;
};

}  // namespace

void fill_from_bytes(const LoadTarget& target, const at::Tensor& bytes) {
  const at::NoGradGuard no_grad;
  make_tensor(target);
  copy_into(*target.tensor, bytes.view(to_scalar_type(target.entry->dtype)).view(target.entry->shape));
}

at::Tensor bytes_of(const LoadTarget& target) {
  const at::NoGradGuard no_grad;
  return target.tensor->detach().resolve_conj().resolve_neg().contiguous().view({-1}).view(at::kByte);
}

void load_tensors(const storage::VersionReader& version, const std::vector<LoadTarget>& targets,
                  const storage::ReadOptions& options) {
  const at::NoGradGuard no_grad;
  ClaimedMemory memory;
  std::vector<storage::TensorTarget> direct;
  std::vector<const LoadTarget*> staged;
  std::uint64_t staging_bytes = 0;
  std::uint64_t largest = 0;
  bool pinned = false;

  for (const LoadTarget& target : targets) {
    make_tensor(target);
    at::Tensor& tensor = *target.tensor;
    const std::uint64_t bytes = target.entry->bytes();
    if (has_plain_bytes(tensor) && memory.claim(tensor.const_data_ptr(), bytes)) {
      direct.push_back(
          {target.entry->name, {static_cast<std::byte*>(tensor.unsafeGetTensorImpl()->mutable_data()), bytes}});
      note_changed(tensor);
    } else {
      staged.push_back(&target);
      staging_bytes += aligned(bytes);
      largest = std::max(largest, aligned(bytes));
      pinned |= tensor.is_cuda();
    }
  }
  detail::throw_if(version.read(direct, options));

  if (!staged.empty()) {
    Staging staging(std::max(largest, std::min(staging_bytes, kStagingBytes)), pinned);
    for (const LoadTarget* target : staged) {
      if (!staging.has_room(aligned(target->entry->bytes()))) staging.read(version, options);
      staging.add(*target);
    }
    staging.read(version, options);
  }
}

}  // namespace holdfast
