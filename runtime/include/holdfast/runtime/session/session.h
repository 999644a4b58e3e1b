// Session: one process's part in a run. It finds what was saved, brings it back, saves between steps, stops in time,
// and gives the exit code. README shows the six lines that wrap a loop; PIPELINE.md says what happens at a boundary.
// Where a launcher started several processes each is a rank of one run: all of them run the same program, rank 0 reads,
// writes and speaks, and what stops one stops all.
//
// What it tracks must live until the last loop that follows is over: tracked objects are read and written at
// boundaries, in restore() and in save_now() only, never in finish() or the destructor.
// Threads: one at a time, the one that trains. One session in a process at a time; a later one keeps the command line's
// options and goes on with the generators as they are. A session that was moved from may only be destroyed or assigned
// to. Errors: holdfast::Error with one sentence, RankFault where ranks cannot go on together. Uncaught, it is printed
// and ends the process with exit code 1.
#pragma once

#include <c10/core/Device.h>
#include <fmt/core.h>

#include <concepts>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/loader.h"
#include "holdfast/runtime/data/loop.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/runtime/pipeline/pipeline.h"
#include "holdfast/runtime/ranks/group.h"
#include "holdfast/runtime/state/tracked_state.h"

namespace holdfast {

/// What finish() returns.
enum ExitCode : int {
  kDone = 0,         // the loops are complete and the last version is saved
  kUsage = 64,       // an option is wrong (EX_USAGE)
  kSuperseded = 69,  // another session took the run over (EX_UNAVAILABLE); its work goes on
  kNotSaved = 74,    // the last version could not be saved (EX_IOERR); an earlier one is there
  kRunAgain = 75,    // stopped early after a save, or a loop was left: run the same command again (EX_TEMPFAIL)
};

class Session {
 public:
  using Site = Group::Site;

  /// Takes the options that start with --holdfast. out of argv; chooses the device, meets the other ranks, seeds every
  /// generator alike on all of them; from here on SIGTERM and the like are remembered. Writes nothing yet. Wrong
  /// options print a sentence and exit with kUsage; a signal to stop while it waits for the others, with kRunAgain.
  static Session start(int& argc, char** argv, SessionOptions options = {});
  /// The same where main's arguments are out of reach: options come from code, configuration file and environment, and
  /// from the command line where an earlier session of the process was given it.
  static Session start(SessionOptions options = {});
  ~Session();
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;
  Session(const Session&) = delete;  // a session cannot be copied: pass it on by reference, as Session&
  Session& operator=(const Session&) = delete;

  /// Names what is saved; see tracked_state.h for what it may be. Before the first step, or between two loops: objects
  /// of a later phase wait in the checkpoint until they are tracked. An object on the stack must live until the last
  /// loop that follows, or be untracked: a loop that begins after its function has returned is refused.
  template <class T>
  Session& track(const std::string& name, T&& x) {
    static_assert(is_kept<T>,
                  "track() keeps a reference to a variable, and this is a temporary value: give it a name first. For a "
                  "TORCH_MODULE, track the holder itself, track(\"net\", net), not net.get()");
    if constexpr (!is_kept<T>) {
      return *this;
    } else if constexpr (!is_trackable<std::remove_reference_t<T>>()) {
      return *this;
    } else {
      return track_kept(name, std::forward<T>(x));
    }
  }
  /// A tensor or module that the program grows or shrinks while it trains (resizable.h).
  template <class T>
  Session& track(const std::string& name, T&& x, Resizable resizes) {
    tracked(name).track(name, std::forward<T>(x), resizes);
    if constexpr (std::is_lvalue_reference_v<T>) remember_owner(name, std::addressof(x));
    return *this;
  }
  /// Ends it, between two loops or before the first: the object may be destroyed. Its present state stays in later
  /// versions, so that a resume finds it where the program tracks it again.
  void untrack(const std::string& name);

  /// Takes the run over and brings its latest version back, if it has one; says so in the start line. The loops below
  /// do it at their first step where it has not been done. True where something was restored.
  bool restore(Site site = Site::current());

  /// Steps of a loader, epoch after epoch: `for (auto& batch : session.steps(loader, {.epochs = 10}))`.
  template <class Dataset>
  StepRange<Dataset> steps(Loader<Dataset>& loader, StepsOptions options, Site site = Site::current()) {
    return {loader_loop(loader, options.epochs, /*nested=*/false, site), loader};
  }
  /// The same, nested: `for (auto& epoch : session.epochs(loader, 10)) for (auto& batch : epoch)`. What is due at an
  /// epoch's last step is saved after the epoch's body.
  template <class Dataset>
  EpochRange<Epoch<Dataset>> epochs(Loader<Dataset>& loader, LoopCount count, Site site = Site::current()) {
    return {loader_loop(loader, count, /*nested=*/true, site),
            [&loader](std::shared_ptr<Loop> loop) { return Epoch<Dataset>(std::move(loop), loader, loader.epoch()); }};
  }
  template <class Dataset>
  EpochRange<Epoch<Dataset>> epochs(Loader<Dataset>& loader, StepsOptions options, Site site = Site::current()) {
    return epochs(loader, options.epochs, site);
  }
  /// The same over batches that the program holds, in a vector for one: `for (auto& epoch : session.epochs({.count =
  /// 10}, batches)) for (auto& batch : epoch)`. The position in them is saved, and they are not: where their order
  /// changes, make it a function of the epoch, or track what it comes from. A resume in the middle of an epoch needs as
  /// many batches as there were. On several ranks each goes through its own, as many as the others.
  template <std::ranges::forward_range Batches>
  EpochRange<OwnEpoch<Batches>> epochs(CountOptions options, Batches& batches, Site site = Site::current()) {
    auto counter = std::make_shared<BatchCounter>();
    auto begin = loader_loop(*counter, options.count, /*nested=*/true, site);
    return {std::move(begin), [counter = std::move(counter), &batches](std::shared_ptr<Loop> loop) {
              return OwnEpoch<Batches>(std::move(loop), counter, batches, counter->epoch());
            }};
  }
  /// Steps of a program that makes its own batches: `for (auto& step : session.steps({.count = 20000}))`. Without a
  /// count the program decides when to end, by session.done(), after its state for one: `for (auto& step :
  /// session.steps()) { ...; if (loss < 0.01) session.done("converged"); }`.
  CountRange steps(CountOptions options = {}, Site site = Site::current()) {
    return CountRange(counted_loop(options.count, site));
  }
  /// The same for a loop whose head is the program's: `while (session.next()) { ... }`, or `while (auto step =
  /// session.next())`. A step ends at the next call. End the loop by session.done(), after which next() is false, or
  /// by session.stop(): next() cannot see a break, so a loop that begins after one is taken for a part of the step.
  std::optional<StepInfo> next(Site site = Site::current());

  /// Loops people try first: each says what to write instead.
  template <class Batches, std::enable_if_t<!std::is_lvalue_reference_v<Batches>, int> = 0>
  typename TemporaryBatches<Batches>::Range epochs(CountOptions options, Batches&& batches,
                                                   Site site = Site::current());
  template <class T, std::enable_if_t<!std::derived_from<T, LoaderBase>, int> = 0>
  typename NotALoader<T>::Range steps(T& loader, StepsOptions options, Site site = Site::current());
  template <class T, std::enable_if_t<!std::derived_from<T, LoaderBase>, int> = 0>
  typename NotALoader<T>::Range epochs(T& loader, StepsOptions options, Site site = Site::current());

  /// Saves now where no step or epoch body is under way, else at the next boundary. `metrics` are kept with the
  /// version.
  void save_now(nlohmann::json metrics = nlohmann::json::object(), Site site = Site::current());

  /// Ends the run early: it saves at the next boundary, and finish() returns kRunAgain, as after a signal. `reason` is
  /// logged and kept. On several ranks one that calls it is enough.
  void stop(const std::string& reason);
  /// The innermost loop is complete after this step's (or epoch's) body, as when it has converged: the next start goes
  /// past it. Every rank calls it in the same step. Throws Error(invalid) outside a loop.
  void done(const std::string& reason = "");

  /// Adds numbers to the run's metrics under the present step: `session.log({{"loss", loss.item<float>()}})`.
  void log(const nlohmann::json& values);

  /// Prints once, from the main rank, and into the session's log.
  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    print_text(fmt::format(format, std::forward<Args>(args)...));
  }

  // What the ranks do together: every rank calls the same in the same order (group.h). A tensor that is given stays as
  // it is; what comes back has no gradient.

  void barrier(Site site = Site::current()) { group().barrier(site); }
  template <class T>
  T broadcast(const T& value, int from = 0, Site site = Site::current()) {
    if constexpr (std::same_as<T, at::Tensor>) {
      at::Tensor own = value.detach().clone();
      group().broadcast(own, from, site);
      return own;
    } else {
      return group().broadcast(value, from, site);
    }
  }
  template <class T>
  T sum(T value, Site site = Site::current()) {
    return reduced(std::move(value), Reduce::sum, site);
  }
  template <class T>
  T mean(T value, Site site = Site::current()) {
    return reduced(std::move(value), Reduce::mean, site);
  }
  template <class T>
  T min(T value, Site site = Site::current()) {
    return reduced(std::move(value), Reduce::min, site);
  }
  template <class T>
  T max(T value, Site site = Site::current()) {
    return reduced(std::move(value), Reduce::max, site);
  }
  template <class T>
  std::vector<T> gather(const T& value, int to = 0, Site site = Site::current()) {
    return group().gather(value, to, site);
  }
  template <class T>
  std::vector<T> all_gather(const T& value, Site site = Site::current()) {
    return group().all_gather(value, site);
  }
  template <class Act>
  auto on_main(Act&& act, Site site = Site::current()) {
    return group().on_main(std::forward<Act>(act), site);
  }
  template <class Act>
  void main_first(Act&& act, Site site = Site::current()) {
    group().main_first(std::forward<Act>(act), site);
  }
  template <class T>
  std::vector<T> split(const std::vector<T>& all) const {
    return group().split(all);
  }
  template <class T>
  std::vector<T> gather_in_order(const std::vector<T>& mine, Site site = Site::current()) {
    return group().gather_in_order(mine, site);
  }
  /// This rank's part of a loader's dataset, in the dataset's order: `for (auto& batch :
  /// session.evaluate(test_loader))`. Over all ranks every sample comes exactly once, so parts may differ in length;
  /// the loader's position stays.
  template <class Dataset>
  typename Loader<Dataset>::Range evaluate(Loader<Dataset>& loader) {
    const auto [first, last] = group().part(loader.size());
    const auto ranks = static_cast<std::uint64_t>(group().world_size());
    return {loader, first, last, (loader.batch_size() + ranks - 1) / ranks};
  }
  /// For plain loops on several ranks: the mean over all ranks of the gradients of `net`, before optimizer.step(). Each
  /// rank's count as its part of the step's batch weighs. Nothing to do on one rank.
  void average_gradients(const torch::nn::Module& net, Site site = Site::current());
  template <class Net>
  requires IsModuleHolder<Net> || std::convertible_to<Net, std::shared_ptr<torch::nn::Module>>
  void average_gradients(const Net& net, Site site = Site::current()) {
    average_gradients(static_cast<const torch::nn::Module&>(*net), site);
  }

  /// A training step of stages around a module and its optimizer (pipeline.h), all of which it tracks: as "net",
  /// "optimizer" and "pipeline", where they are not tracked yet. Before the first step only.
  template <class Net>
  Pipeline pipeline(Net& net, torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages) {
    return make_pipeline("", module_of(net), optimizer, std::move(stages));
  }
  /// One of several: as "name.net", "name.optimizer" and "name".
  template <class Net>
  Pipeline pipeline(const std::string& name, Net& net, torch::optim::Optimizer& optimizer,
                    std::vector<AnyStage> stages) {
    return make_pipeline(name, module_of(net), optimizer, std::move(stages));
  }

  /// The page that a distributed program is debugged with: a block for each rank (place, device, memory, load,
  /// precision, versions), in order. Printed once, and returned on the main rank.
  std::string describe(Site site = Site::current());

  int rank() const { return group().rank(); }
  int world_size() const { return group().world_size(); }
  bool is_main() const { return group().is_main(); }
  Group& group() const;

  c10::Device device() const;
  std::uint64_t seed() const;
  /// Steps completed over the whole run.
  std::uint64_t step() const;
  /// The run will end early: skip what only makes sense after a whole loop.
  bool stopping() const;

  /// Makes the last version durable, closes the run, and gives the exit code. The last boundary of the program's last
  /// loop is the last version: finish() reads nothing that is tracked, so objects of a function that has returned are
  /// fine. What changes after the last loop is not saved; call save_now() where it should be.
  int finish(Site site = Site::current());

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  Impl& impl() const;
  template <class Net>
  static std::shared_ptr<torch::nn::Module> module_of(Net& net) {
    if constexpr (IsModuleHolder<Net>) {
      return net.ptr();
    } else if constexpr (std::derived_from<Net, torch::nn::Module>) {
      return std::shared_ptr<torch::nn::Module>(std::shared_ptr<void>(), &net);  // not owned
    } else {
      return net;
    }
  }
  template <class T>
  T reduced(T value, Reduce how, Site site) {
    if constexpr (std::same_as<T, at::Tensor>) {
      value = value.detach().clone();
      group().all_reduce(value, how, site);
      return value;
    } else {
      return group().all_reduce(value, how, site);
    }
  }
  Pipeline make_pipeline(const std::string& name, std::shared_ptr<torch::nn::Module> net,
                         torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages);
  template <class T>
  Session& track_kept(const std::string& name, T&& x) {
    if constexpr (std::derived_from<std::remove_cvref_t<T>, LoaderBase>) shard(x);
    tracked(name).track(name, std::forward<T>(x));
    if constexpr (std::is_lvalue_reference_v<T>) remember_owner(name, std::addressof(x));
    return *this;
  }
  TrackedState& tracked(const std::string& name);
  void remember_owner(const std::string& name, const void* variable);
  void shard(LoaderBase& loader);
  BeginLoop loader_loop(LoaderBase& loader, std::uint64_t epochs, bool nested, Site site);
  BeginLoop counted_loop(std::uint64_t count, Site site);
  void print_text(const std::string& text);

  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
