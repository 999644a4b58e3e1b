#include "checkpoint/shared_version.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/text/text.h"
#include "ranks/status_json.h"
#include "tensors/tensor_load.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;
using storage::TensorEntry;

constexpr std::int64_t kBatchBytes = std::int64_t{256} << 20;
constexpr std::int64_t kPieceBytes = std::int64_t{64} << 20;
constexpr std::int64_t kAlignment = 64;  // every dtype's views of a batch are aligned

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// ---------------------------------------------------------------------------------------------------------------------
// Loading

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
        throw_if(version->read(
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

// ---------------------------------------------------------------------------------------------------------------------
// Saving

std::string digest_text(const storage::TensorSource& source) {
  return fmt::format("{} {} {}", to_string(source.dtype), fmt::join(source.shape, "x"), source.digest().hex());
}

std::string digest_text(const json& value) { return storage::digest_of(value.dump()).hex(); }

// Moves bytes from one rank to rank 0.
void send_to_main(Group& group, int from, at::Tensor bytes) {
  const auto pg = group.process_group();
  for (std::int64_t done = 0; done < bytes.numel(); done += kPieceBytes) {
    std::vector<at::Tensor> piece{bytes.narrow(0, done, std::min(kPieceBytes, bytes.numel() - done))};
    if (group.rank() == from) pg->send(piece, 0, /*tag=*/0)->wait();
    if (group.is_main()) pg->recv(piece, from, /*tag=*/0)->wait();
  }
}

storage::TensorSource source_of(std::string name, const json& like, const at::Tensor& bytes) {
  storage::TensorSource source;
  source.name = std::move(name);
  const std::string dtype = like.at("dtype").get<std::string>();
  const auto known = storage::parse_dtype(dtype);
  if (!known) {
    throw Error(StatusCode::corrupt, "another rank sent the tensor '" + source.name + "' with the dtype " +
                                         storage::in_quotes(dtype) +
                                         ", which this one does not know: start the same build on all hosts");
  }
  source.dtype = *known;
  like.at("shape").get_to(source.shape);
  source.copy = [bytes](std::uint64_t offset, std::span<std::byte> into) {
    std::memcpy(into.data(), static_cast<const std::byte*>(bytes.const_data_ptr()) + offset, into.size());
  };
  return source;
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
  throw_if(group_.broadcast(outcome));
  share(group_, version_.manifest(), targets, &version_);
}

void RankFeed::fill(const std::vector<LoadTarget>& targets) {
  throw_if(group_.broadcast(storage::Status()));
  share(group_, manifest_, targets, nullptr);
}

void gather_rank_state(Group& group, Snapshot& captured, Group::Site site) {
  if (group.world_size() == 1) return;
  // 1. Rank 0 sends the digests of its state to all.
  std::map<std::string, std::string> digests;
  std::map<std::string, const storage::TensorSource*> sources;
  for (const storage::TensorSource& source : captured.tensors) {
    if (!captured.may_differ.contains(source.name)) continue;
    digests[source.name] = digest_text(source);
    sources[source.name] = &source;
  }
  std::map<std::string, std::string> value_digests;
  for (const auto& [name, value] : captured.values.items()) value_digests[name] = digest_text(value);
  using Digests = std::map<std::string, std::string>;
  const auto said =
      group.compare("the save", "values", group.is_main() ? json(std::pair(digests, value_digests)) : json(), site);
  const auto [main_digests, main_values] = said.front().get<std::pair<Digests, Digests>>();

  // 2. Each rank announces its differing state: values completely, tensors by name, dtype and shape.
  json mine = {{"values", json::object()}, {"tensors", json::array()}};
  for (const auto& [name, digest] : value_digests) {
    const auto found = main_values.find(name);
    if (found == main_values.end() || found->second != digest) mine["values"][name] = captured.values[name];
  }
  for (const auto& [name, digest] : digests) {
    const auto found = main_digests.find(name);
    if (found != main_digests.end() && found->second == digest) continue;
    mine["tensors"].push_back(
        {{"name", name}, {"dtype", to_string(sources[name]->dtype)}, {"shape", sources[name]->shape}});
  }
  const auto all = group.compare("the save", "values", mine, site);

  // 3. The tensors follow, rank by rank.
  const auto move = [&] {
    for (int rank = 1; rank < group.world_size(); ++rank) {
      const json& theirs = all[static_cast<std::size_t>(rank)];
      for (const auto& [name, value] : theirs.at("values").items()) {
        if (group.is_main()) captured.values[rank_name(name, rank)] = value;
      }
      for (const json& tensor : theirs.at("tensors")) {
        if (!group.is_main() && group.rank() != rank) continue;
        const std::string name = tensor.at("name");
        storage::TensorSource source = source_of(rank_name(name, rank), tensor, at::Tensor());
        const auto size = static_cast<std::int64_t>(source.bytes());
        const at::Tensor bytes = at::empty({size}, at::kByte);
        if (group.rank() == rank) {
          sources[name]->copy(0, {static_cast<std::byte*>(bytes.mutable_data_ptr()), static_cast<std::size_t>(size)});
        }
        send_to_main(group, rank, bytes);
        if (group.is_main()) captured.tensors.push_back(source_of(source.name, tensor, bytes));
      }
    }
  };
  group.operation("the save", move, site);
}

void require_alike(Group& group, const Snapshot& captured, Group::Site site, const std::string& when,
                   const std::string& remedy) {
  if (group.world_size() == 1) return;
  // One digest shows that all are alike; only on a difference are the tensors compared one by one.
  std::map<std::string, std::string> digests;
  for (const storage::TensorSource& source : captured.tensors) {
    if (!captured.may_differ.contains(source.name)) digests[source.name] = digest_text(source);
  }
  const auto summary = group.compare("the check of parameters", "", digest_text(json(digests)), site);
  if (std::all_of(summary.begin(), summary.end(), [&](const auto& one) { return one == summary[0]; })) return;
  const auto all = group.all_gather(digests, site);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    for (const auto& [name, digest] : all[0]) {
      const auto found = all[rank].find(name);
      if (found != all[rank].end() && found->second == digest) continue;
      throw Error(StatusCode::invalid,
                  found == all[rank].end()
                      ? fmt::format("{} is tracked on rank 0 and not on rank {}: every rank must build the same model",
                                    name, rank)
                      : fmt::format("{} has other values on rank {} than on rank 0 {}: {}", name, rank, when, remedy));
    }
    for (const auto& [name, digest] : all[rank]) {
      if (!all[0].contains(name)) {
        throw Error(StatusCode::invalid,
                    fmt::format("{} is tracked on rank {} and not on rank 0: every rank must build the same model",
                                name, rank));
      }
    }
  }
}

}  // namespace holdfast
