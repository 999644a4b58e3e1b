#include "session/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "holdfast/runtime/data/loader_base.h"
#include "holdfast/runtime/error.h"
#include "splitmix64.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;

constexpr const char* kLoaderLoop = "loader";
constexpr const char* kBatchesLoop = "batches";
constexpr const char* kCountedLoop = "count";
constexpr const char* kSaveNow = "save_now";

const char* kind_of(const LoopPosition& loop) {
  switch (loop.kind) {
    case LoopPosition::Kind::over_loader:
      return kLoaderLoop;
    case LoopPosition::Kind::over_batches:
      return kBatchesLoop;
    case LoopPosition::Kind::save_now:
      return kSaveNow;
    default:
      return kCountedLoop;
  }
}

std::string in_words(const std::string& kind) {
  if (kind == kLoaderLoop) return "a loop over a loader";
  if (kind == kBatchesLoop) return "a loop over the program's own batches";
  return kind == kSaveNow ? "a call of session.save_now()" : "a counted loop";
}

void check_position(const LoopPosition& loop, const json& saved, std::size_t index) {
  const std::string kind = saved.at("kind");
  if (kind != kind_of(loop)) {
    throw Error(
        StatusCode::misfit,
        fmt::format("loop {} of the program is {}, but in the checkpoint it was {}: keep the loops in their order, or "
                    "begin a new run",
                    index + 1, in_words(kind_of(loop)), in_words(kind)));
  }
  if (loop.loader != nullptr) loop.loader->check_state(saved.at("loader"));
}

// Older versions do not record the loop in which they were made: it was the last one that had begun.
void mark_last_loop(json& positions) {
  for (const json& position : positions) {
    if (!position.is_object()) continue;
    if (position.contains("here") || position.contains("step_body") || position.contains("epoch_body")) return;
  }
  for (auto position = positions.rbegin(); position != positions.rend(); ++position) {
    if (!position->is_object()) continue;
    (*position)["here"] = true;
    return;
  }
}

}  // namespace

json LoopScope::state(const LoopPosition* here) const {
  json all = saved;
  for (std::size_t i = 0; i < loops.size(); ++i) {
    while (all.size() <= i) all.push_back(nullptr);
    all[i] = loops[i]->state(here);
  }
  for (std::size_t i = loops.size(); i < all.size(); ++i) {
    if (all[i].is_object()) all[i].erase("here");  // the earlier version's mark
  }
  return all;
}

bool LoopPosition::at_end() const {
  if (over != Over::no) return true;
  if (has_loader()) {
    const std::uint64_t epoch = loader != nullptr ? loader->epoch() : last_loader.at("epoch").get<std::uint64_t>();
    return epoch >= first_epoch + target;
  }
  return done >= target;
}

bool LoopPosition::is_complete() const {
  const bool last_batch = loader != nullptr && !nested && loader->epoch_done();
  return at_end() || (last_batch && loader->epoch() + 1 >= first_epoch + target);
}

void LoopPosition::close(Over how) {
  if (over == Over::no) over = how;
  if (loader != nullptr) last_loader = loader->state();
  loader = nullptr;
  in_step = in_epoch = false;
}

json LoopPosition::state(const LoopPosition* here) const {
  json position = {{"kind", kind_of(*this)}};
  if (kind == Kind::counted) position["done"] = done;
  if (has_loader()) {
    position["done"] = done;
    position["first_epoch"] = first_epoch;
    position["loader"] = loader != nullptr ? loader->state() : last_loader;
    if (in_step) {  // a loop in this step's body saves: a resume gets the step's batch again
      json& state = position["loader"];
      for (const char* const count : {"cursor", "samples_seen"}) {
        state[count] = state[count].get<std::uint64_t>() - loader->batch_samples();
      }
    } else if (in_epoch && loader->epoch() > epoch) {  // a loop in the epoch's body saves after the batches
      position["loader"]["epoch"] = epoch;
      position["loader"]["cursor"] = loader->samples_per_epoch();
    }
  }
  if (this == here) position["here"] = true;
  if (over != Over::no) position["over"] = over == Over::left ? "left" : "done";
  if (json inside = step_body.state(here); !inside.empty()) position["step_body"] = std::move(inside);
  if (json inside = epoch_body.state(here); !inside.empty()) position["epoch_body"] = std::move(inside);
  return position;
}

void LoopPosition::set_state(const json& saved) {
  if (kind == Kind::save_now) return;
  if (has_loader()) {
    first_epoch = saved.at("first_epoch");
    loader->set_state(saved.at("loader"));
    const std::uint64_t seen = loader->samples_seen();
    const std::uint64_t batch = loader->batch_size();
    // Older versions do not count a loop's own steps.
    done = saved.contains("done") ? saved.at("done").get<std::uint64_t>() : (seen + batch - 1) / batch;
  } else {
    done = saved.at("done");
  }
  // The program had continued after this loop, so a resume skips it.
  if (saved.contains("over")) over = saved.at("over") == "done" ? Over::done : Over::left;
  step_body.saved = saved.value("step_body", json::array());
  epoch_body.saved = saved.value("epoch_body", json::array());
}

Progress::Progress() : first_loader_(detail::LoaderBase::next_number()) {}

json Progress::state() const {
  json state = {{"step", step}, {"samples", samples}, {"loops", program_.state(here_.lock().get())}};
  json loaders = saved_loaders_;
  for (const auto& [number, loader] : loaders_) {
    const std::string key = std::to_string(number);
    if (loader.first.expired()) {
      loaders.erase(key);
    } else {
      loaders[key] = loader.second;
    }
  }
  if (!loaders.empty()) state["loaders"] = std::move(loaders);
  if (!later_.empty()) state["later"] = later_;
  if (rollbacks.total > 0) {
    state["rollbacks"] = {{"total", rollbacks.total},
                          {"skipped", rollbacks.skipped},
                          {"at", rollbacks.at},
                          {"in_a_row", rollbacks.in_a_row}};
  }
  return state;
}

void Progress::check_state(const json& state) const {
  try {
    (void)state.at("step").get<std::uint64_t>();
    (void)state.at("samples").get<std::uint64_t>();
    const json& saved = state.at("loops");
    if (loads_again) return;
    for (std::size_t i = 0; i < program_.loops.size() && i < saved.size(); ++i) {
      if (!saved[i].is_null()) check_position(*program_.loops[i], saved[i], i);
    }
  } catch (const json::exception& error) {
    throw Error(StatusCode::misfit, fmt::format("the run's progress in the checkpoint is invalid: {}", error.what()));
  }
}

void Progress::set_state(const json& state) {
  check_state(state);
  if (loads_again) return;
  step = state["step"];
  samples = state["samples"];
  if (const auto saved = state.find("rollbacks"); saved != state.end()) {
    rollbacks = {saved->at("total"), saved->at("skipped"), saved->at("at"), saved->at("in_a_row")};
  }
  program_.saved = state["loops"];
  mark_last_loop(program_.saved);
  saved_loaders_ = state.value("loaders", json::object());
}

LoopScope& Progress::scope() {
  for (auto loop = open.rbegin(); loop != open.rend(); ++loop) {
    if ((*loop)->in_step) return (*loop)->step_body;
    if ((*loop)->in_epoch) return (*loop)->epoch_body;
  }
  return program_;
}

std::shared_ptr<LoopPosition> Progress::begin(LoopPosition loop) {
  for (const auto& outer : open) {
    if (loop.loader != nullptr && outer->loader == loop.loader) {
      throw Error(StatusCode::invalid,
                  "a loop over a loader begins inside the body of a loop over the same loader, whose position would be "
                  "lost: use a second holdfast::Loader, or session.evaluate()");
    }
  }
  LoopScope& where = scope();
  std::uint64_t id = where.loops.size();
  if (&where != &program_) {
    const LoopPosition& outer = *open.back();
    id = splitmix64(splitmix64(outer.id ^ splitmix64(outer.done * 2 + (outer.in_step ? 1 : 0))) ^ id);
  }
  loop.id = id;
  return where.loops.emplace_back(std::make_shared<LoopPosition>(std::move(loop)));
}

std::uint64_t Progress::number_of(const detail::LoaderBase& loader) const { return loader.number() - first_loader_; }

std::string Progress::resume(LoopPosition& loop) {
  std::string note;
  const LoopScope& where = scope();
  const std::size_t index = where.loops.size() - 1;
  if (index < where.saved.size() && !where.saved[index].is_null()) {
    const json& saved = where.saved[index];
    check_position(loop, saved, index);
    loop.set_state(saved);
    if (loop.loader != nullptr) note = loop.loader->change();
    loop.has_saved = true;
    loop.saved_here = saved.contains("here");
  } else if (loop.loader != nullptr) {
    const auto carried = saved_loaders_.find(std::to_string(number_of(*loop.loader)));
    if (carried != saved_loaders_.end() && !used_loaders_.contains(number_of(*loop.loader))) {
      loop.loader->set_state(*carried);
      note = loop.loader->change();
    }
    loop.first_epoch = loop.loader->epoch();
  }
  if (loop.loader != nullptr) {
    used_loaders_.insert(number_of(*loop.loader));
    epoch = loop.loader->epoch();
  }
  return note;
}

void Progress::end(const LoopPosition& loop, LoopPosition::Over how) {
  const auto found = std::find_if(open.begin(), open.end(), [&](const auto& one) { return one.get() == &loop; });
  if (found == open.end()) return;
  for (auto inner = open.end(); inner != found;) {
    LoopPosition& ending = **--inner;
    if (ending.loader != nullptr) {
      loaders_[number_of(*ending.loader)] = {ending.loader->alive(), ending.loader->state()};
    }
    ending.close(&ending == &loop ? how : LoopPosition::Over::left);
  }
  open.erase(found, open.end());
}

std::vector<std::string> Progress::later_names(const storage::Manifest& manifest) {
  const auto progress = manifest.values.find(kName);
  if (progress == manifest.values.end() || !progress->is_object() || !progress->contains("later")) return {};
  return progress->at("later").get<std::vector<std::string>>();
}

std::uint64_t Progress::current_epoch() const {
  for (auto loop = open.rbegin(); loop != open.rend(); ++loop) {
    if ((*loop)->loader != nullptr) return (*loop)->loader->epoch();
  }
  return epoch;
}

void Progress::mark(const std::shared_ptr<LoopPosition>& loop) { here_ = loop; }

bool Progress::ends_in_left_loop() const {
  return !program_.loops.empty() && program_.loops.back()->over == LoopPosition::Over::left;
}

void Progress::reopen_left_loop() {
  if (ends_in_left_loop()) program_.loops.back()->over = LoopPosition::Over::no;
}

}  // namespace holdfast
