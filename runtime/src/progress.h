// How far the run is: steps, samples, and where each loop of the program stands. Tracked like any other state, under a
// name of its own, so that it is saved and fits or does not fit with everything else.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace holdfast {

class LoaderBase;

/// Where one loop stands. Loops are told apart by the order in which the program begins them.
struct LoopPosition {
  LoaderBase* loader = nullptr;   // null: a counted loop
  std::uint64_t target = 0;       // epochs or steps
  std::uint64_t first_epoch = 0;  // the loader's epoch when the loop first began
  std::uint64_t done = 0;         // steps of a counted loop
  bool nested = false;            // epochs() rather than steps()
  bool started = false;

  bool at_end() const;
};

struct Progress {
  static constexpr const char* kName = "holdfast";  // it is tracked under

  std::uint64_t step = 0;     // completed
  std::uint64_t samples = 0;  // that loops of loaders consumed
  std::vector<std::unique_ptr<LoopPosition>> loops;

  nlohmann::json state() const;
  /// Throws Error(misfit) where a loop of this program cannot stand where the saved one did.
  void check_state(const nlohmann::json& state) const;
  void set_state(const nlohmann::json& state);
  /// Takes the loop to its saved position, where one was saved, and marks it as started.
  void start(std::size_t loop);

 private:
  nlohmann::json saved_loops_ = nlohmann::json::array();  // of loops that have not begun yet, too
};

}  // namespace holdfast
