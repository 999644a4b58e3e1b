#include "checkpoint/rank_feed.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "holdfast/runtime/error.h"
#include "ranks/status_json.h"
#include "tensors/tensor_load.h"

namespace holdfast {
namespace {

using storage::StatusCode;

constexpr std::int64_t kBatchBytes = std::int64_t{256} << 20;
constexpr std::int64_t kAlignment = 64;  // every dtype's views of a batch are aligned

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// A rank that does not fit stops all, before any rank overwrites anything.
void require_all(Group& group, const Compatibility& fit) {
  const auto messages = group.all_gather(fit.ok() ? std::string() : fit.message());
  for (std::size_t rank = 0; rank < messages.size(); ++rank) {
    if (messages[rank].empty()) continue;
    const bool all =
        std::all_of(messages.begin(), messages.end(), [&](const auto& one) { return one == messages[rank]; });
    throw Error(StatusCode::misfit, all ? messages[rank] : fmt::format("on rank {}: {}", rank, messages[rank]));
  }
}

// The entries, as indices into the manifest, that any rank but 0 needs.
std::vector<std::size_t> wanted_by_others(Group& group, const storage::Manifest& manifest,
                                          const std::vector<LoadTarget>& targets) {
  std::set<std::size_t> mine;
  if (!group.is_main()) {
    for (const LoadTarget& target : targets)
      mine.insert(static_cast<std::size_t>(target.entry - manifest.tensors.data()));
  }
  std::set<std::size_t> all;
  for (const auto& one : group.all_gather(std::vector<std::size_t>(mine.begin(), mine.end()))) {
    all.insert(one.begin(), one.end());
  }
  return {all.begin(), all.end()};
}

std::multimap<std::size_t, const LoadTarget*> by_entry(const storage::Manifest& manifest,
                                                       const std::vector<LoadTarget>& targets) {
  std::multimap<std::size_t, const LoadTarget*> found;
  for (const LoadTarget& target : targets)
    found.emplace(static_cast<std::size_t>(target.entry - manifest.tensors.data()), &target);
  return found;
}

// Rank 0 sends every entry that another rank needs to all ranks, many in one message. `version`: null on other ranks.
void share(Group& group, const storage::Manifest& manifest, const std::vector<LoadTarget>& targets,
           const storage::VersionReader* version) {
  const auto wanted = wanted_by_others(group, manifest, targets);
  const auto mine = by_entry(manifest, targets);
  for (std::size_t begin = 0; begin < wanted.size();) {
    std::size_t end = begin;
    std::int64_t bytes = 0;
    do {
      bytes += aligned(static_cast<std::int64_t>(manifest.tensors[wanted[end]].bytes()));
      ++end;
    } while (end < wanted.size() &&
             bytes + aligned(static_cast<std::int64_t>(manifest.tensors[wanted[end]].bytes())) <= kBatchBytes);

    at::Tensor batch = at::zeros({bytes}, at::TensorOptions(at::kByte).device(group.device()));
    const auto each = [&](const auto& act) {
      std::int64_t offset = 0;
      for (std::size_t i = begin; i < end; ++i) {
        const auto size = static_cast<std::int64_t>(manifest.tensors[wanted[i]].bytes());
        act(wanted[i], batch.narrow(0, offset, size));
        offset += aligned(size);
      }
    };
    if (group.is_main()) {
      each([&](std::size_t index, at::Tensor into) {
        if (const auto target = mine.find(index); target != mine.end()) {
          into.copy_(bytes_of(*target->second));
          return;
        }
        at::Tensor read = at::empty(into.sizes(), at::kByte);  // belongs to another rank
        detail::throw_if(version->read(
            {{manifest.tensors[index].name, {static_cast<std::byte*>(read.mutable_data_ptr()), read.nbytes()}}}));
        into.copy_(read);
      });
    }
    group.broadcast(batch);
    if (!group.is_main()) {
      each([&](std::size_t index, const at::Tensor& from) {
        const auto [first, last] = mine.equal_range(index);
        for (auto target = first; target != last; ++target) fill_from_bytes(*target->second, from);
      });
    }
    begin = end;
  }
}

}  // namespace

void MainFeed::require(const Compatibility& fit) { require_all(group_, fit); }
void RankFeed::require(const Compatibility& fit) { require_all(group_, fit); }

void MainFeed::fill(const std::vector<LoadTarget>& targets) {
  storage::Status outcome;
  try {
    load_tensors(version_, targets, {});
  } catch (const Error& error) {
    outcome = {error.code(), error.what()};
  }
  detail::throw_if(group_.broadcast(outcome));
  share(group_, version_.manifest(), targets, &version_);
}

void RankFeed::fill(const std::vector<LoadTarget>& targets) {
  detail::throw_if(group_.broadcast(storage::Status()));
  share(group_, manifest_, targets, nullptr);
}

}  // namespace holdfast
