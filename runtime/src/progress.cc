#include "progress.h"

#include <fmt/format.h>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/loader.h"

namespace holdfast {
namespace {

constexpr const char* kLoaderLoop = "loader";
constexpr const char* kCountedLoop = "count";

void check_loop(const LoopPosition& loop, const nlohmann::json& saved, std::size_t index) {
  const std::string kind = loop.loader != nullptr ? kLoaderLoop : kCountedLoop;
  if (saved.at("kind") != kind) {
    throw Error(
        storage::StatusCode::misfit,
        fmt::format("loop {} of the program is over {}, but in the checkpoint it was over {}: keep the loops in "
                    "their order, or begin a new run",
                    index + 1, loop.loader != nullptr ? "a loader" : "a count of steps",
                    loop.loader != nullptr ? "a count of steps" : "a loader"));
  }
  if (loop.loader != nullptr) loop.loader->check_state(saved.at("loader"));
}

}  // namespace

bool LoopPosition::at_end() const {
  return loader != nullptr ? loader->epoch() >= first_epoch + target : done >= target;
}

nlohmann::json Progress::state() const {
  nlohmann::json all = saved_loops_;
  for (std::size_t i = 0; i < loops.size(); ++i) {
    const LoopPosition& loop = *loops[i];
    if (!loop.started) continue;
    while (all.size() <= i) all.push_back(nullptr);
    all[i] =
        loop.loader != nullptr
            ? nlohmann::json{{"kind", kLoaderLoop}, {"first_epoch", loop.first_epoch}, {"loader", loop.loader->state()}}
            : nlohmann::json{{"kind", kCountedLoop}, {"done", loop.done}};
  }
  return {{"step", step}, {"samples", samples}, {"loops", all}};
}

void Progress::check_state(const nlohmann::json& state) const {
  try {
    (void)state.at("step").get<std::uint64_t>();
    (void)state.at("samples").get<std::uint64_t>();
    const nlohmann::json& saved = state.at("loops");
    for (std::size_t i = 0; i < loops.size() && i < saved.size(); ++i) {
      if (!saved[i].is_null()) check_loop(*loops[i], saved[i], i);
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(storage::StatusCode::misfit,
                fmt::format("what the checkpoint holds is not the progress of a run: {}", error.what()));
  }
}

void Progress::set_state(const nlohmann::json& state) {
  check_state(state);
  step = state["step"];
  samples = state["samples"];
  saved_loops_ = state["loops"];
}

void Progress::start(std::size_t index) {
  LoopPosition& loop = *loops[index];
  if (index < saved_loops_.size() && !saved_loops_[index].is_null()) {
    const nlohmann::json& saved = saved_loops_[index];
    check_loop(loop, saved, index);
    if (loop.loader != nullptr) {
      loop.first_epoch = saved.at("first_epoch");
      loop.loader->set_state(saved.at("loader"));
    } else {
      loop.done = saved.at("done");
    }
  } else if (loop.loader != nullptr) {
    loop.first_epoch = loop.loader->epoch();
  }
  loop.started = true;
}

}  // namespace holdfast
