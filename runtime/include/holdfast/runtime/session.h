// Session: one process's part in a run. It finds what was saved, brings it back, saves between steps, stops in time,
// and gives the exit code. README shows the six lines that wrap a loop; PIPELINE.md says what happens at a boundary.
//
// Declare it first: it must outlive nothing, and what it tracks must live until finish(). It touches tracked objects at
// boundaries, in restore() and in finish() only, never in its destructor.
// Threads: one at a time, the one that trains. One session in a process at a time.
// Errors: holdfast::Error with one sentence. Uncaught, it is printed and ends the process with exit code 1.
#pragma once

#include <c10/core/Device.h>
#include <fmt/core.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "holdfast/runtime/loader.h"
#include "holdfast/runtime/loop.h"
#include "holdfast/runtime/options.h"
#include "holdfast/runtime/tracked_state.h"

namespace holdfast {

/// What finish() returns.
enum ExitCode : int {
  kDone = 0,         // the loops ran to their ends and the last version is saved
  kUsage = 64,       // an option is wrong (EX_USAGE)
  kSuperseded = 69,  // another session took the run over (EX_UNAVAILABLE); its work goes on
  kNotSaved = 74,    // the last version could not be saved (EX_IOERR); an earlier one is there
  kRunAgain = 75,    // stopped early after a save: run the same command again (EX_TEMPFAIL)
};

class Session {
 public:
  /// Takes the options that start with --holdfast. out of argv; chooses the device; seeds every generator; from here on
  /// SIGTERM and the like are remembered. Writes nothing yet. Wrong options print a sentence and exit with kUsage.
  static Session start(int& argc, char** argv, SessionOptions options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Names what is saved; see tracked_state.h for what it may be. Before the first step only.
  template <class T>
  Session& track(const std::string& name, T&& x) {
    tracked().track(name, std::forward<T>(x));
    return *this;
  }

  /// Takes the run over and brings its latest version back, if it has one; says so in the start line. The loops below
  /// do it at their first step where it has not been done. True where something was restored.
  bool restore();

  /// Steps of a loader, epoch after epoch: `for (auto& batch : session.steps(loader, {.epochs = 10}))`.
  template <class Dataset>
  StepRange<Dataset> steps(Loader<Dataset>& loader, StepsOptions options) {
    return {loader_loop(loader, options.epochs, /*nested=*/false), loader, /*one_epoch=*/false};
  }
  /// The same, nested: `for (auto& epoch : session.epochs(loader, 10)) for (auto& batch : epoch)`. What is due at an
  /// epoch's last step is saved after the epoch's body.
  template <class Dataset>
  EpochRange<Dataset> epochs(Loader<Dataset>& loader, std::uint64_t count) {
    return {loader_loop(loader, count, /*nested=*/true), loader};
  }
  /// Steps of a program that makes its own batches: `for (auto& step : session.steps({.count = 20000}))`.
  CountRange steps(CountOptions options) { return CountRange(counted_loop(options.count)); }

  /// Saves now where no step or epoch body is under way, else at the next boundary. `metrics` are kept with the
  /// version.
  void save_now(nlohmann::json metrics = nlohmann::json::object());

  /// Adds numbers to the run's metrics under the present step: `session.log({{"loss", loss.item<float>()}})`.
  void log(const nlohmann::json& values);

  /// Prints once, from the main rank, and into the session's log.
  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    print_text(fmt::format(format, std::forward<Args>(args)...));
  }

  c10::Device device() const;
  std::uint64_t seed() const;
  /// Steps completed over the whole run.
  std::uint64_t step() const;
  /// The run will end early: skip what only makes sense after a whole loop.
  bool stopping() const;

  /// Makes the last version durable, closes the run, and gives the exit code.
  int finish();

 private:
  explicit Session(SessionOptions options);
  TrackedState& tracked();
  Loop& loader_loop(LoaderBase& loader, std::uint64_t epochs, bool nested);
  Loop& counted_loop(std::uint64_t count);
  void print_text(const std::string& text);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
