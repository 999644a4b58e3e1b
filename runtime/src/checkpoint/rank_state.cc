#include "checkpoint/rank_state.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "checkpoint/state_digest.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/text.h"
#include "snapshot/rank_names.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;

constexpr std::int64_t kPieceBytes = std::int64_t{64} << 20;

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

}  // namespace holdfast
