#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "ranks/call_site.h"
#include "ranks/group_impl.h"
#include "ranks/value_bytes.h"

namespace holdfast {
namespace {

using storage::StatusCode;

std::string describe(const at::Tensor& tensor, std::size_t first_dimension = 0) {
  return fmt::format("a {} {} tensor [{}]", c10::DeviceTypeName(tensor.device().type(), /*lower_case=*/true),
                     c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes().slice(first_dimension), ", "));
}

// Every dtype can be moved as bytes, whichever dtypes the backend computes with.
at::Tensor bytes_of(const at::Tensor& tensor) {
  return tensor.resolve_conj().resolve_neg().contiguous().view({-1}).view(at::kByte);
}

// A moved tensor must be dense; `written`: and none of its elements may share memory.
void require_dense(const at::Tensor& tensor, bool written, const char* operation, const Group::Site& site) {
  const auto refuse = [&](const char* why) {
    throw Error(StatusCode::invalid, fmt::format("{} at {} {}", operation, text_of(site), why));
  };
  if (!tensor.defined()) refuse("was given an undefined tensor; every rank must give one of the same shape");
  if (tensor.layout() != at::kStrided) refuse("takes dense tensors; to_dense() makes one");
  if (written && at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    refuse("cannot write to a tensor whose elements share memory, as expand() makes it; clone() gives each its own");
  }
}

bool can_be_reduced(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kChar:
    case at::kByte:
    case at::kInt:
    case at::kLong:
      return true;
    default:
      return false;
  }
}

}  // namespace

void Group::broadcast(at::Tensor& tensor, int from, Site site) {
  require_rank("broadcast", from, site);
  require_dense(tensor, /*written=*/true, "broadcast", site);
  impl_->collective("broadcast", fmt::format("{} from rank {}", describe(tensor), from), "", site,
                    [&](const std::vector<CollectiveFingerprint>&) {
                      const at::NoGradGuard no_grad;
                      std::vector<at::Tensor> bytes{bytes_of(tensor)};
                      c10d::BroadcastOptions options;
                      options.rootRank = from;
                      process_group()->broadcast(bytes, options)->wait();
                      if (rank() != from) tensor.copy_(bytes[0].view(tensor.scalar_type()).view(tensor.sizes()));
                    });
}

void Group::all_reduce(at::Tensor& tensor, Reduce how, Site site) {
  require_dense(tensor, /*written=*/true, "all_reduce", site);
  const bool whole = at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true);
  if (!can_be_reduced(tensor.scalar_type()) || (whole && how == Reduce::mean)) {
    throw Error(StatusCode::invalid, fmt::format("all_reduce at {} cannot compute {}{}; convert the tensor first",
                                                 text_of(site), name_of(how), describe(tensor)));
  }
  impl_->collective("all_reduce", name_of(how) + describe(tensor), "", site,
                    [&](const std::vector<CollectiveFingerprint>&) {
                      const at::NoGradGuard no_grad;
                      std::vector<at::Tensor> work{tensor.contiguous()};
                      c10d::AllreduceOptions options;
                      options.reduceOp = how == Reduce::min   ? c10d::ReduceOp::MIN
                                         : how == Reduce::max ? c10d::ReduceOp::MAX
                                                              : c10d::ReduceOp::SUM;
                      process_group()->allreduce(work, options)->wait();
                      if (!work[0].is_same(tensor)) tensor.copy_(work[0]);
                      if (how == Reduce::mean) tensor.div_(world_size());
                    });
}

std::vector<at::Tensor> Group::gather_tensors(const char* operation, const std::string& whither,
                                              const at::Tensor& tensor, Site site) {
  require_dense(tensor, /*written=*/false, operation, site);
  if (tensor.dim() == 0) {
    throw Error(StatusCode::invalid, fmt::format("{} at {} takes tensors with at least one dimension; unsqueeze(0) "
                                                 "adds one",
                                                 operation, text_of(site)));
  }
  std::vector<at::Tensor> all;
  const auto move = [&](const std::vector<CollectiveFingerprint>& fingerprints) {
    const at::NoGradGuard no_grad;
    std::vector<std::int64_t> lengths;
    for (const CollectiveFingerprint& fingerprint : fingerprints)
      lengths.push_back(from_bytes(fingerprint.value).get<std::int64_t>());
    const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    auto shape = tensor.sizes().vec();
    shape[0] = longest;
    at::Tensor padded = at::zeros(shape, tensor.options());
    padded.narrow(0, 0, tensor.size(0)).copy_(tensor);
    std::vector<at::Tensor> bytes{bytes_of(padded)};
    std::vector<std::vector<at::Tensor>> gathered(1);
    for (std::size_t i = 0; i < fingerprints.size(); ++i) gathered[0].push_back(at::empty_like(bytes[0]));
    if (bytes[0].numel() > 0) process_group()->allgather(gathered, bytes)->wait();
    for (std::size_t i = 0; i < fingerprints.size(); ++i) {
      all.push_back(gathered[0][i].view(tensor.scalar_type()).view(shape).narrow(0, 0, lengths[i]));
    }
  };
  impl_->collective(operation, describe(tensor, 1) + whither, to_bytes(tensor.size(0)), site, move);
  if (world_size() == 1) all.push_back(tensor.detach().clone());
  return all;
}

std::vector<at::Tensor> Group::all_gather(const at::Tensor& tensor, Site site) {
  return gather_tensors("all_gather", "", tensor, site);
}

std::vector<at::Tensor> Group::gather(const at::Tensor& tensor, int to, Site site) {
  require_rank("gather", to, site);
  auto all = gather_tensors("gather", to_rank(to), tensor, site);
  if (rank() != to) all.clear();
  return all;
}

}  // namespace holdfast
