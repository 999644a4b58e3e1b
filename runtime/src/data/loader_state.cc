// What a checkpoint holds of a loader, and whether the program's loader can continue from it.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/dataset_change.h"
#include "data/loader_impl.h"
#include "data/sample_order.h"
#include "holdfast/runtime/error.h"

namespace holdfast::detail {
namespace {

using storage::StatusCode;

// Whether a loader's state is inside an epoch: only some of the epoch's samples were handed out.
bool is_inside_an_epoch(const nlohmann::json& state, bool drop_last) {
  const std::uint64_t cursor = state.at("cursor"), size = state.at("size");
  const std::uint64_t batch = std::max(std::uint64_t{1}, state.value("batch_size", std::uint64_t{1}));
  return cursor != 0 && cursor != size && !(drop_last && cursor == size - size % batch);
}

}  // namespace

nlohmann::json LoaderBase::state() const {
  const auto& self = *impl_;
  nlohmann::json state = {{"epoch", self.epoch},
                          {"cursor", self.cursor},
                          {"samples_seen", self.seen},
                          {"seed", self.seed},
                          {"size", self.size},
                          {"batch_size", self.batch_size},
                          {"shuffle", self.options.shuffle},
                          {"order", kSampleOrderVersion}};
  if (self.options.order && is_inside_an_epoch(state, self.options.drop_last)) {
    state["own_order"] = self.own_order(self.epoch).digest;
  }
  return state;
}

void LoaderBase::check_state(const nlohmann::json& state) const {
  const auto& self = *impl_;
  const auto misfit = [](const std::string& sentence) -> void { throw Error(StatusCode::misfit, sentence); };
  std::uint64_t epoch = 0, cursor = 0, seen = 0, seed = 0, size = 0;
  bool shuffle = false;
  int order = 0;
  try {
    state.at("epoch").get_to(epoch);
    state.at("cursor").get_to(cursor);
    state.at("samples_seen").get_to(seen);
    state.at("seed").get_to(seed);
    state.at("size").get_to(size);
    state.at("shuffle").get_to(shuffle);
    state.at("order").get_to(order);
  } catch (const nlohmann::json::exception& error) {
    misfit(fmt::format("the checkpoint's state of the loader is invalid: {}", error.what()));
  }
  if (cursor > size) {
    misfit(fmt::format("the checkpoint's state of the loader is invalid: it is at sample {} of {}", cursor, size));
  }
  const bool inside_an_epoch = is_inside_an_epoch(state, self.options.drop_last);
  if (self.counts_batches) return;  // the number of batches is checked when the epoch's steps begin
  if (size != self.size && inside_an_epoch) {
    if (dataset_change_is_allowed()) return;
    misfit(
        fmt::format("the dataset has {} samples, and the checkpoint was made inside epoch {} when it had {}: use the "
                    "same data until that epoch is over, restart the epoch with --holdfast.allow-dataset-change, or "
                    "start a new run",
                    self.size, epoch + 1, size));
  }
  const bool own_order = self.options.order != nullptr;
  if (inside_an_epoch && own_order != state.contains("own_order")) {
    misfit(
        fmt::format("the checkpoint was made inside epoch {} {} LoaderOptions::order, and the program {}: some samples "
                    "would occur twice and others never; change it back until the epoch is over",
                    epoch + 1, own_order ? "without" : "with", own_order ? "gives one" : "gives none"));
  }
  if (inside_an_epoch && own_order) {
    if (state.at("own_order") == self.own_order(epoch).digest) return;
    misfit(fmt::format(
        "LoaderOptions::order gives another order for epoch {} than when the checkpoint was made inside it: "
        "it must depend only on the epoch, as does a shuffle by a generator that is seeded with the epoch",
        epoch + 1));
  }
  if (inside_an_epoch && shuffle != self.options.shuffle) {
    misfit(
        fmt::format("the checkpoint was made inside epoch {} with shuffle = {} and the program sets {}: some "
                    "samples would occur twice and others never; change shuffle back until the epoch is over",
                    epoch + 1, shuffle, self.options.shuffle));
  }
  if (inside_an_epoch && shuffle && order != kSampleOrderVersion) {
    misfit(
        fmt::format("the checkpoint was made inside an epoch with version {} of the shuffled order, and this build of "
                    "Holdfast has version {}: continue with a build that has that version",
                    order, kSampleOrderVersion));
  }
}

void LoaderBase::set_state(const nlohmann::json& state) {
  check_state(state);
  auto& self = *impl_;
  const std::uint64_t epoch = state["epoch"], size = state["size"];
  std::uint64_t cursor = state["cursor"];
  const auto batch_size = state.value("batch_size", self.batch_size);
  self.change.clear();
  if (!self.counts_batches && batch_size != self.batch_size) {
    self.change = fmt::format("sample-exact, not bit-exact: batches of {} → {} samples", batch_size, self.batch_size);
  }
  if (self.counts_batches) {
    self.size = size;
  } else if (size != self.size) {
    const bool again = is_inside_an_epoch(state, self.options.drop_last);
    self.change +=
        fmt::format("{}the dataset has {} samples and had {}{}", self.change.empty() ? "" : "; ", self.size, size,
                    again ? fmt::format(": epoch {} begins again (--holdfast.allow-dataset-change)", epoch + 1) : "");
    cursor = again || cursor == 0 ? 0 : self.samples_per_epoch();
  }
  self.seed = state["seed"];
  self.go_to(epoch, cursor);
  self.seen = state["samples_seen"];
}

void LoaderBase::set_batches(std::uint64_t count) {
  auto& self = *impl_;
  const bool inside = self.cursor != 0 && self.cursor != self.size;
  self.change.clear();
  if (inside && count != self.size) {
    if (!dataset_change_is_allowed()) {
      throw Error(
          StatusCode::misfit,
          fmt::format(
              "the program has {} batches, and the checkpoint was made after {} of {} in epoch {}: use the same "
              "batches until that epoch is over, or restart it with --holdfast.allow-dataset-change",
              count, self.cursor, self.size, self.epoch + 1));
    }
    self.change =
        fmt::format("the program has {} batches and had {}: epoch {} begins again", count, self.size, self.epoch + 1);
    self.cursor = 0;
  } else if (self.cursor != 0 && self.cursor == self.size) {
    self.cursor = count;
  }
  self.size = count;
}

}  // namespace holdfast::detail
