// Session: one process's part in a run. It finds what was saved, restores it, saves between steps, stops in time, and
// gives the exit code. README shows the six lines that wrap a loop; PIPELINE.md says what happens at a boundary. If a
// launcher started several processes, each is a rank of one run: all of them run the same program; rank 0 reads, writes
// and prints; what stops one rank stops all.
//
// Tracked objects must live until the last loop that follows is over: they are read and written at boundaries, in
// restore() and in save_now() only, never in finish() or the destructor.
// Threads: one at a time, the one that trains. One session in a process at a time; a later one keeps the command line's
// options and continues with the generators as they are. A session that was moved from may only be destroyed or
// assigned to. Errors: holdfast::Error with one sentence, RankFault if ranks cannot continue together. An uncaught
// error is printed and ends the process with exit code 1.
//
// Process-wide effects: start() removes its options from argv, opens /dev/null in place of closed standard streams, and
// installs a terminate handler and exit functions, which stay and pass on what is not theirs (session.cc,
// uncaught_error.h). Until finish() or the destructor, SIGTERM, SIGINT, SIGHUP and SIGUSR1 only request a save;
// signals.h says what stop signals do afterwards. SIGPIPE and SIGXFSZ, unless the program handles them, only make a
// write fail, to the end of the process. It seeds LibTorch's default generators, makes the chosen GPU the current one,
// and may set the number of intra-op threads. A restore sets generators, threads, deterministic flags and float32
// precision as they were saved. Nothing sets these back (session_start.cc, device.h, reproducibility.h).
// --holdfast.deterministic also sets CUBLAS_WORKSPACE_CONFIG, if unset. After a resume, SIGSEGV, SIGBUS, SIGFPE and
// SIGABRT on rank 0 first write a note to the journal, for ten steps or until finish(), and then take their former
// action; the handlers and the thread's alternative signal stack stay (death_note.h). With several ranks, LibTorch's
// log level is raised to errors, unless TORCH_CPP_LOG_LEVEL is set, and Holdfast prints warnings, both to the end of
// the process (torch_warnings.h); TORCH_NCCL_ASYNC_ERROR_HANDLING is 0 on GPUs (transport.h); three threads watch the
// other ranks until the destructor (watchdog.h). A thread that connects to a rank which never answers stays behind
// (detached_task.h).
#pragma once

#include <c10/core/Device.h>
#include <fmt/format.h>

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
#include "holdfast/runtime/data/loop_options.h"
#include "holdfast/runtime/data/own_epoch.h"
#include "holdfast/runtime/data/ranges.h"
#include "holdfast/runtime/data/step_info.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/runtime/pipeline/pipeline.h"
#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/runtime/ranks/group.h"
#include "holdfast/runtime/state/tracked_state.h"

namespace holdfast {

class Session {
 public:
  using Site = Group::Site;

  /// Removes the options that start with --holdfast. from argv, chooses the device, runs the rendezvous, and seeds
  /// every generator alike on all ranks. From here on SIGTERM and the like are remembered. Writes nothing yet. Wrong
  /// options print a sentence and exit with kUsage; a signal to stop while it waits for other ranks exits with
  /// kRunAgain.
  static Session start(int& argc, char** argv, SessionOptions options = {});
  /// For code that cannot reach main's arguments: options come from code, configuration file and environment, and from
  /// the command line if an earlier session of the process was given it.
  static Session start(SessionOptions options = {});
  ~Session();
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;
  Session(const Session&) = delete;  // a session cannot be copied: pass it on by reference, as Session&
  Session& operator=(const Session&) = delete;

  /// Makes `x` a part of what is saved, under `name`; tracked_state.h lists the types. Before the first step, or
  /// between two loops: the state of objects of a later phase stays in the checkpoint until they are tracked. An object
  /// on the stack must live until the last loop that follows, or be untracked: a loop that begins after its function
  /// has returned is refused.
  template <class T>
  Session& track(const std::string& name, T&& x) {
    static_assert(detail::is_kept<T>,
                  "track() keeps a reference to a variable, and this is a temporary value: give it a name first. For a "
                  "TORCH_MODULE, track the holder itself, track(\"net\", net), not net.get()");
    if constexpr (!detail::is_kept<T>) {
      return *this;
    } else if constexpr (!detail::is_trackable<std::remove_reference_t<T>>()) {
      return *this;
    } else {
      return track_kept(name, std::forward<T>(x));
    }
  }
  /// Tracks a tensor or module that the program grows or shrinks while it trains (resizable.h).
  template <class T>
  Session& track(const std::string& name, T&& x, Resizable resizes) {
    tracked(name).track(name, std::forward<T>(x), resizes);
    if constexpr (std::is_lvalue_reference_v<T>) remember_owner(name, std::addressof(x));
    return *this;
  }
  /// Ends tracking, between two loops or before the first: the object may be destroyed. Its present state stays in
  /// later versions, so that a resume finds it if the program tracks it again.
  void untrack(const std::string& name);

  /// Takes the run over, restores its latest version, if it has one, and reports that in the start line. If the program
  /// does not call it, the loops below do at their first step. Returns true if something was restored.
  bool restore(Site site = Site::current());

  /// Steps of a loader, epoch after epoch: `for (auto& batch : session.steps(loader, {.epochs = 10}))`.
  template <class Dataset>
  detail::StepRange<Dataset> steps(Loader<Dataset>& loader, StepsOptions options, Site site = Site::current()) {
    return {loader_loop(loader, options.epochs, /*nested=*/false, site), loader};
  }
  /// Epochs with their steps: `for (auto& epoch : session.epochs(loader, 10)) for (auto& batch : epoch)`. A save that
  /// is due at an epoch's last step happens after the epoch's body.
  template <class Dataset>
  detail::EpochRange<Epoch<Dataset>> epochs(Loader<Dataset>& loader, LoopCount count, Site site = Site::current()) {
    return {loader_loop(loader, count, /*nested=*/true, site), [&loader](std::shared_ptr<detail::Loop> loop) {
              return Epoch<Dataset>(std::move(loop), loader, loader.epoch());
            }};
  }
  template <class Dataset>
  detail::EpochRange<Epoch<Dataset>> epochs(Loader<Dataset>& loader, StepsOptions options,
                                            Site site = Site::current()) {
    return epochs(loader, options.epochs, site);
  }
  /// Epochs over batches that the program holds, such as a vector: `for (auto& epoch : session.epochs({.count = 10},
  /// batches)) for (auto& batch : epoch)`. The position in the batches is saved, not the batches: if their order
  /// changes, make it a function of the epoch, or track what it depends on. A resume in the middle of an epoch needs as
  /// many batches as before. With several ranks each has batches of its own, as many as the others.
  template <std::ranges::forward_range Batches>
  detail::EpochRange<detail::OwnEpoch<Batches>> epochs(CountOptions options, Batches& batches,
                                                       Site site = Site::current()) {
    auto counter = std::make_shared<detail::BatchCounter>();
    auto begin = loader_loop(*counter, options.count, /*nested=*/true, site);
    return {std::move(begin), [counter = std::move(counter), &batches](std::shared_ptr<detail::Loop> loop) {
              return detail::OwnEpoch<Batches>(std::move(loop), counter, batches, counter->epoch());
            }};
  }
  /// Steps of a program that makes its own batches: `for (auto& step : session.steps({.count = 20000}))`. Without a
  /// count the program ends the loop by session.done(), depending on its state for example: `for (auto& step :
  /// session.steps()) { ...; if (loss < 0.01) session.done("converged"); }`.
  detail::CountRange steps(CountOptions options = {}, Site site = Site::current()) {
    return detail::CountRange(counted_loop(options.count, site));
  }
  /// Steps of the program's own while loop: `while (session.next()) { ... }`, or `while (auto step = session.next())`.
  /// A step ends at the next call. End the loop by session.done(), after which next() returns nothing, or by
  /// session.stop(): next() cannot see a break, so a loop that begins after one is treated as a part of the step.
  std::optional<StepInfo> next(Site site = Site::current());

  /// Common mistakes: the compiler's error for each says what to write instead.
  template <class Batches, std::enable_if_t<!std::is_lvalue_reference_v<Batches>, int> = 0>
  typename detail::TemporaryBatches<Batches>::Range epochs(CountOptions options, Batches&& batches,
                                                           Site site = Site::current());
  template <class T, std::enable_if_t<!std::derived_from<T, detail::LoaderBase>, int> = 0>
  typename detail::NotALoader<T>::Range steps(T& loader, StepsOptions options, Site site = Site::current());
  template <class T, std::enable_if_t<!std::derived_from<T, detail::LoaderBase>, int> = 0>
  typename detail::NotALoader<T>::Range epochs(T& loader, StepsOptions options, Site site = Site::current());

  /// Saves now if no step or epoch body is running, else at the next boundary. `metrics` are kept with the version.
  void save_now(nlohmann::json metrics = nlohmann::json::object(), Site site = Site::current());

  /// Ends the run early: it saves at the next boundary, and finish() returns kRunAgain, as after a signal. `reason` is
  /// logged and kept. With several ranks a call on one of them is enough.
  void stop(const std::string& reason);
  /// Completes the innermost loop after this step's (or epoch's) body, on convergence for example: the next start skips
  /// it. Every rank calls it in the same step. Throws Error(invalid) outside a loop.
  void done(const std::string& reason = "");

  /// Adds numbers to the run's metrics under the present step: `session.log({{"loss", loss.item<float>()}})`.
  void log(const nlohmann::json& values);

  /// Prints once, from the main rank, and into the session's log.
  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    print_text(fmt::format(format, std::forward<Args>(args)...));
  }

  // Collectives: every rank calls the same ones in the same order (group.h). A tensor argument is not changed; a tensor
  // result has no gradient.

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
  /// session.evaluate(test_loader))`. Over all ranks every sample occurs exactly once, so parts may differ in length.
  /// The loader's position does not change.
  template <class Dataset>
  typename Loader<Dataset>::Range evaluate(Loader<Dataset>& loader) {
    const auto [first, last] = group().part(loader.size());
    const auto ranks = static_cast<std::uint64_t>(group().world_size());
    return {loader, first, last, (loader.batch_size() + ranks - 1) / ranks};
  }
  /// For plain loops on several ranks: replaces the gradients of `net` by their mean over all ranks; call it before
  /// optimizer.step(). Each rank's weight is its share of the step's batch. Does nothing on one rank.
  void average_gradients(const torch::nn::Module& net, Site site = Site::current());
  template <class Net>
  requires detail::IsModuleHolder<Net> || std::convertible_to<Net, std::shared_ptr<torch::nn::Module>>
  void average_gradients(const Net& net, Site site = Site::current()) {
    average_gradients(static_cast<const torch::nn::Module&>(*net), site);
  }

  /// A training step of stages around a module and its optimizer (pipeline.h). It tracks all of them, as "net",
  /// "optimizer" and "pipeline", unless they are tracked already. Before the first step only.
  template <class Net>
  Pipeline pipeline(Net& net, torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages) {
    return make_pipeline("", module_of(net), optimizer, std::move(stages));
  }
  /// One of several pipelines: tracked as "name.net", "name.optimizer" and "name".
  template <class Net>
  Pipeline pipeline(const std::string& name, Net& net, torch::optim::Optimizer& optimizer,
                    std::vector<AnyStage> stages) {
    return make_pipeline(name, module_of(net), optimizer, std::move(stages));
  }

  /// A page for debugging a distributed program: a block for each rank (place, device, memory, load, precision,
  /// versions), in order. Printed once, and returned on the main rank.
  std::string describe(Site site = Site::current());

  int rank() const { return group().rank(); }
  int world_size() const { return group().world_size(); }
  bool is_main() const { return group().is_main(); }
  Group& group() const;

  c10::Device device() const;
  std::uint64_t seed() const;
  /// Steps completed over the whole run.
  std::uint64_t step() const;
  /// True if the run will end early: skip what only makes sense after a whole loop.
  bool stopping() const;

  /// Makes the last version durable, closes the run, and returns the exit code. The last version is that of the last
  /// boundary of the program's last loop: finish() does not read tracked objects, so their functions may have returned.
  /// Changes after the last loop are not saved; call save_now() if they should be.
  int finish(Site site = Site::current());

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  Impl& impl() const;
  template <class Net>
  static std::shared_ptr<torch::nn::Module> module_of(Net& net) {
    if constexpr (detail::IsModuleHolder<Net>) {
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
    if constexpr (std::derived_from<std::remove_cvref_t<T>, detail::LoaderBase>) shard(x);
    tracked(name).track(name, std::forward<T>(x));
    if constexpr (std::is_lvalue_reference_v<T>) remember_owner(name, std::addressof(x));
    return *this;
  }
  detail::TrackedState& tracked(const std::string& name);
  void remember_owner(const std::string& name, const void* variable);
  void shard(detail::LoaderBase& loader);
  detail::BeginLoop loader_loop(detail::LoaderBase& loader, std::uint64_t epochs, bool nested, Site site);
  detail::BeginLoop counted_loop(std::uint64_t count, Site site);
  void print_text(const std::string& text);

  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
