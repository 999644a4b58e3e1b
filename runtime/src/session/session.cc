#include <fcntl.h>
#include <fmt/format.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/storage/run/death_note.h"
#include "holdfast/storage/text/plural.h"
#include "holdfast/storage/text/units.h"
#include "pipeline/average_gradients.h"
#include "pipeline/trainable_parameters.h"
#include "process/uncaught_error.h"
#include "session/earlier_sessions.h"
#include "session/rank_description.h"
#include "session/session_impl.h"
#include "session/session_loop.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// A standard stream that the caller closed (`>&-`) leaves its number to the next file that this process opens, such as
// a version's payload, and the program's output would go into that file.
void fill_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);  // open() uses the lowest free number
  }
}

// An option of the session on the command line of this process; empty if there is none.
std::string argument_of_session() {
  std::ifstream command_line("/proc/self/cmdline", std::ios::binary);
  for (std::string argument; std::getline(command_line, argument, '\0');) {
    if (argument == "--") return {};
    if (argument.starts_with("--holdfast.")) return argument;
  }
  return {};
}

// The session's options. Exits on a wrong one, because the user must correct it; it is not a program error. Arguments
// that an earlier session removed from the command line still count.
detail::OptionsRead options_or_exit(int& argc, char** argv, const SessionOptions& code) {
  try {
    std::vector<std::string> taken = earlier_sessions().arguments;
    std::vector<char*> all(argv, argv + std::min(argc, 1));
    for (std::string& argument : taken) all.push_back(argument.data());
    for (int i = 1; i < argc && argv[i] != nullptr; ++i) all.push_back(argv[i]);
    all.push_back(nullptr);
    int count = static_cast<int>(all.size()) - 1;
    detail::OptionsRead read = detail::read_options(count, all.data(), code);
    if (argc > 0) std::copy(all.begin(), all.begin() + count + 1, argv);
    argc = count;
    earlier_sessions().arguments = read.arguments;
    if (read.help) {
      std::fputs(detail::help_text(read).c_str(), stdout);
      std::exit(kDone);
    }
    (void)read_rank_environment();
    return read;
  } catch (const Error& error) {
    std::fprintf(stderr, "holdfast: %s\n", error.what());
    std::exit(kUsage);
  }
}

}  // namespace

Session Session::start(int& argc, char** argv, SessionOptions options) {
  fill_standard_streams();
  report_uncaught_errors();
  EarlierSessions& earlier = earlier_sessions();
  if (earlier.argv != argv) earlier.arguments.clear();  // another command line
  earlier.argv = argv;
  detail::OptionsRead read = options_or_exit(argc, argv, options);
  return Session(std::make_unique<Impl>(std::move(read), read_rank_environment()));
}

Session Session::start(SessionOptions options) {
  fill_standard_streams();
  report_uncaught_errors();
  if (earlier_sessions().argv == nullptr) {
    if (const std::string given = argument_of_session(); !given.empty()) {
      std::fprintf(stderr,
                   "holdfast: %s cannot take effect because this program does not pass its command line to "
                   "Session::start(argc, argv, options): use the environment or a configuration file\n",
                   given.c_str());
      std::exit(kUsage);
    }
  }
  std::string name = program_invocation_name;
  char* arguments[] = {name.data(), nullptr};
  int count = 1;
  detail::OptionsRead read = options_or_exit(count, arguments, options);
  return Session(std::make_unique<Impl>(std::move(read), read_rank_environment()));
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::Session(Session&& other) noexcept = default;

Session& Session::operator=(Session&& other) noexcept {
  if (this != &other) {
    const Session ended(std::move(*this));
    impl_ = std::move(other.impl_);
  }
  return *this;
}

Session::Impl& Session::impl() const {
  if (!impl_) throw Error(StatusCode::invalid, "this Session was moved from: use the one it was moved to");
  return *impl_;
}

Session::~Session() {
  if (!impl_ || !impl_->resumed.opened || impl_->finished) return;
  storage::disarm_death_note();
  if (impl_->manager) (void)impl_->manager->metrics().flush();
  if (const std::uint64_t lost = impl_->progress.step - impl_->saving.last.step; lost != 0) {
    impl_->console.say(fmt::format("the program ended without session.finish(): {} since the last version {} not saved",
                                   storage::plural(lost, "step"), lost == 1 ? "is" : "are"));
  }
}

bool Session::restore(Site site) {
  impl().here = site;
  impl().restore();
  return impl().resumed.has_base;
}

void Session::save_now(nlohmann::json metrics, Site site) {
  if (!metrics.is_object()) {
    throw Error(StatusCode::invalid, "save_now takes metrics as an object of names and numbers");
  }
  impl().saving.metrics = std::move(metrics);
  impl().saving.requested = true;
  if (!impl().is_inside()) impl().save_between_loops(site);
}

void Session::stop(const std::string& reason) {
  if (reason.empty()) throw Error(StatusCode::invalid, "session.stop() needs a reason, which the log repeats");
  impl().agreement.program_stop = reason;
}

void Session::done(const std::string& reason) {
  if (!impl().is_inside()) {
    throw Error(StatusCode::invalid,
                "session.done() was called outside a loop: call it in the loop's body, before a break or return");
  }
  LoopPosition& loop = *impl().progress.open.back();
  if (loop.over == LoopPosition::Over::done) return;
  loop.over = LoopPosition::Over::done;
  impl().say(fmt::format("the loop is complete after step {}: {}",
                         storage::format_count(loop.done + (loop.in_step ? 1 : 0)),
                         reason.empty() ? "session.done()" : reason));
}

void Session::log(const nlohmann::json& values) {
  Impl& self = impl();
  if (!self.resumed.opened) {
    throw Error(StatusCode::invalid,
                "session.log() was called before the run was opened; call session.restore() first");
  }
  MetricsWriter::check(values);  // on all ranks, although only rank 0 writes them
  if (self.manager) {
    (void)self.manager->metrics().log(self.progress.step + (self.progress.in_step() ? 1 : 0),
                                      self.progress.current_epoch(), values);
  }
  self.last_logged.clear();
  for (const auto& [name, value] : values.items()) {
    if (value.is_number()) self.last_logged.emplace_back(name, value.get<double>());
  }
}

c10::Device Session::device() const { return impl().device.device; }
std::uint64_t Session::seed() const { return impl().options.seed; }
std::uint64_t Session::step() const { return impl().progress.step; }
bool Session::stopping() const { return impl().stop.has_value(); }

int Session::finish(Site site) {
  if (impl().stop) impl().agreement.signals.stop_is_under_way();
  const int code = impl().finish(site);
  if (code == kDone) {
    impl().agreement.signals.release();
  } else {
    impl().agreement.signals.stop_is_under_way();
  }
  return code;
}

detail::TrackedState& Session::tracked(const std::string& name) {
  Impl& self = impl();
  if (self.is_inside()) {
    throw Error(StatusCode::invalid,
                fmt::format("session.track(\"{}\") was called in a loop's body: track it before the "
                            "loop begins",
                            name));
  }
  if (self.resumed.opened) self.progress.note_later(name);
  self.resumed.tracks_late = self.resumed.opened && self.resumed.has_base;
  self.lifetimes.revive(name);
  self.resumed.waiting.erase(name);
  return self.tracked;
}

void Session::remember_owner(const std::string& name, const void* variable) {
  impl().lifetimes.remember(name, variable);
}

void Session::untrack(const std::string& name) {
  Impl& self = impl();
  if (self.is_inside()) {
    throw Error(
        StatusCode::invalid,
        fmt::format("session.untrack(\"{}\") was called in a loop's body: call it before or after the loop", name));
  }
  if (name == Progress::kName) {
    throw Error(
        StatusCode::invalid,
        fmt::format("session.untrack(\"{}\") would lose the run's own progress, which is tracked under that name",
                    name));
  }
  if (self.resumed.opened) self.lifetimes.retire(self.tracked, name, self.is_main());
  self.tracked.untrack(name);
  self.lifetimes.forget(name);
}

detail::BeginLoop Session::loader_loop(detail::LoaderBase& loader, std::uint64_t epochs, bool nested, Site site) {
  LoopPosition position;
  position.kind = loader.counts_batches() ? LoopPosition::Kind::over_batches : LoopPosition::Kind::over_loader;
  position.loader = &loader;
  position.target = epochs;
  position.nested = nested;
  return [impl = &impl(), position, site] { return impl->begin_loop(position, site); };
}

detail::BeginLoop Session::counted_loop(std::uint64_t count, Site site) {
  LoopPosition position;
  position.target = count;
  return [impl = &impl(), position, site] { return impl->begin_loop(position, site); };
}

std::optional<StepInfo> Session::next(Site site) { return impl().next_step(site); }

void Session::print_text(const std::string& text) {
  if (impl().is_main()) impl().console.print(text);
}

void Session::average_gradients(const torch::nn::Module& net, Site site) {
  Impl& self = impl();
  const bool first = !std::exchange(self.gradients_were_compared, true);
  const std::string suspicion =
      holdfast::average_gradients(self.group, trainable_parameters(net), self.step_info.weight(), first, site);
  if (!suspicion.empty()) self.console.say(suspicion);
}

Pipeline Session::make_pipeline(const std::string& name, std::shared_ptr<torch::nn::Module> net,
                                torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages) {
  Impl& self = impl();
  detail::TrackedState& state = tracked(name.empty() ? "pipeline" : name);
  if (!net) throw Error(StatusCode::invalid, "session.pipeline() was given a module that is null: make it first");
  const std::string prefix = name.empty() ? "" : name + ".";
  StageContext context{name,
                       self.group,
                       self.device.device,
                       *net,
                       optimizer,
                       trainable_parameters(*net),
                       self.options.precision ? std::optional(**self.options.precision) : std::nullopt,
                       [&self, whose = name.empty() ? "" : "pipeline " + name + ": "](const std::string& line) {
                         self.console.say(whose + line);
                       }};
  Pipeline& pipeline = *self.pipelines.emplace_back(std::make_unique<Pipeline>(std::move(context), std::move(stages)));
  if (!self.tracked.tracks(*net)) state.track(prefix + "net", std::shared_ptr<torch::nn::Module>(net));
  if (!self.tracked.tracks(optimizer)) state.track(prefix + "optimizer", optimizer);
  state.track(name.empty() ? "pipeline" : name, pipeline);
  self.modules.push_back(std::move(net));
  return pipeline;
}

std::string Session::describe(Site site) {
  std::string precision;
  for (const auto& pipeline : impl().pipelines) {
    const Amp* amp = pipeline->find_stage<Amp>();
    precision += (precision.empty() ? "" : ", ") + (amp != nullptr ? to_string(amp->precision()) : "fp32");
  }
  const std::string mine = describe_rank(impl().group, precision.empty() ? "fp32" : precision, kVersion);
  std::string text;
  for (const auto& block : impl().group.compare("session.describe", "", mine, site)) text += block.get<std::string>();
  if (!is_main()) return {};
  print_text(text);
  return text;
}

Group& Session::group() const { return impl().group; }

void Session::shard(detail::LoaderBase& loader) { loader.shard(impl().group.rank(), impl().group.world_size()); }

}  // namespace holdfast
