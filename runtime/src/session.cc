#include <fcntl.h>
#include <fmt/format.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "average_gradients.h"
#include "holdfast/runtime/amp.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/units.h"
#include "holdfast/storage/death_note.h"
#include "rank_description.h"
#include "session_impl.h"
#include "trainable_parameters.h"
#include "uncaught_error.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// A standard stream that the caller closed (`>&-`) leaves its number to the next file opened here, a version's payload
// for one, and whatever the program prints would go into that.
void fill_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);  // takes the lowest number that is free
  }
}

// The session's options as they say themselves; a wrong one is the user's to mend, not a program error.
OptionsRead options_or_exit(int& argc, char** argv, const SessionOptions& code) {
  try {
    OptionsRead read = read_options(argc, argv, code);
    if (read.help) {
      std::fputs(help_text(read).c_str(), stdout);
      std::exit(kDone);
    }
    parse_save_every(read.values.every);
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
  OptionsRead read = options_or_exit(argc, argv, options);
  return Session(std::make_unique<Impl>(std::move(read), read_rank_environment()));
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::~Session() {
  if (!impl_ || !impl_->opened || impl_->finished) return;
  storage::disarm_death_note();
  if (impl_->keeper) (void)impl_->keeper->metrics().flush();
  if (impl_->progress.step != impl_->last_save.step) {
    impl_->console.say(
        fmt::format("the program ended without session.finish(): {} steps since the last version are not "
                    "saved",
                    format_count(impl_->progress.step - impl_->last_save.step)));
  }
}

bool Session::restore(Site site) {
  impl_->here = site;
  impl_->restore();
  return impl_->has_base;
}

void Session::save_now(nlohmann::json metrics) {
  if (!metrics.is_object()) {
    throw Error(StatusCode::invalid, "save_now takes metrics as an object of names and numbers");
  }
  impl_->pending_metrics = std::move(metrics);
  impl_->save_requested = true;
  if (impl_->is_inside()) return;
  impl_->restore();
  impl_->save("save_now", /*insist=*/false);
}

void Session::log(const nlohmann::json& values) {
  Impl& self = *impl_;
  if (!self.opened) {
    throw Error(StatusCode::invalid, "session.log() comes before the run was opened; call session.restore() first");
  }
  MetricsWriter::check(values);  // on all ranks, though rank 0 alone writes them
  std::uint64_t epoch = 0;
  for (const auto& loop : self.progress.loops) {
    if (loop->started && loop->loader != nullptr) epoch = loop->loader->epoch();
  }
  if (self.keeper) (void)self.keeper->metrics().log(self.progress.step + (self.in_step ? 1 : 0), epoch, values);
  self.last_logged.clear();
  for (const auto& [name, value] : values.items()) {
    if (value.is_number()) self.last_logged.emplace_back(name, value.get<double>());
  }
}

c10::Device Session::device() const { return impl_->device.device; }
std::uint64_t Session::seed() const { return impl_->options.seed; }
std::uint64_t Session::step() const { return impl_->progress.step; }
bool Session::stopping() const { return impl_->stop.has_value(); }

int Session::finish(Site site) {
  if (impl_->stop) impl_->signals.stop_is_under_way();
  const int code = impl_->finish(site);
  if (code == kDone) {
    impl_->signals.release();
  } else {
    impl_->signals.stop_is_under_way();
  }
  return code;
}

TrackedState& Session::tracked() {
  if (impl_->opened) {
    throw Error(StatusCode::invalid,
                "session.track() comes after the run was opened; track everything before the first "
                "step and before session.restore()");
  }
  return impl_->tracked;
}

Loop& Session::loader_loop(LoaderBase& loader, std::uint64_t epochs, bool nested, Site site) {
  LoopPosition position;
  position.loader = &loader;
  position.target = epochs;
  position.nested = nested;
  return impl_->add_loop(position, site);
}

Loop& Session::counted_loop(std::uint64_t count, Site site) {
  LoopPosition position;
  position.target = count;
  return impl_->add_loop(position, site);
}

void Session::print_text(const std::string& text) {
  if (impl_->is_main()) impl_->console.print(text);
}

void Session::average_gradients(const torch::nn::Module& net, Site site) {
  Impl& self = *impl_;
  const bool first = !std::exchange(self.gradients_were_compared, true);
  const std::string suspicion =
      holdfast::average_gradients(self.group, trainable_parameters(net), self.step_info.weight(), first, site);
  if (!suspicion.empty()) self.console.say(suspicion);
}

Pipeline Session::make_pipeline(const std::string& name, std::shared_ptr<torch::nn::Module> net,
                                torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages) {
  Impl& self = *impl_;
  TrackedState& state = tracked();
  if (!net) throw Error(StatusCode::invalid, "session.pipeline() was given a module that is null: make it before");
  const std::string prefix = name.empty() ? "" : name + ".";
  StageContext context{name,
                       self.group,
                       self.device.device,
                       *net,
                       optimizer,
                       trainable_parameters(*net),
                       self.options.precision,
                       [&self, whose = name.empty() ? "" : "pipeline " + name + ": "](const std::string& line) {
                         self.console.say(whose + line);
                       }};
  Pipeline& pipeline = *self.pipelines.emplace_back(std::make_unique<Pipeline>(std::move(context), std::move(stages)));
  if (!state.tracks(*net)) state.track(prefix + "net", std::shared_ptr<torch::nn::Module>(net));
  if (!state.tracks(optimizer)) state.track(prefix + "optimizer", optimizer);
  state.track(name.empty() ? "pipeline" : name, pipeline);
  self.modules.push_back(std::move(net));
  return pipeline;
}

std::string Session::describe(Site site) {
  std::string precision;
  for (const auto& pipeline : impl_->pipelines) {
    const Amp* amp = pipeline->find_stage<Amp>();
    precision += (precision.empty() ? "" : ", ") + (amp != nullptr ? to_string(amp->precision()) : "fp32");
  }
  const std::string mine = describe_rank(impl_->group, precision.empty() ? "fp32" : precision, kVersion);
  std::string text;
  for (const auto& block : impl_->group.compare("session.describe", "", mine, site)) text += block.get<std::string>();
  if (!is_main()) return {};
  print_text(text);
  return text;
}

Group& Session::group() const { return impl_->group; }

void Session::shard(LoaderBase& loader) { loader.shard(impl_->group.rank(), impl_->group.world_size()); }

}  // namespace holdfast
