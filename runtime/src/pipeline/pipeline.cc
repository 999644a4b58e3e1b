#include "holdfast/runtime/pipeline/pipeline.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/nn/module.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/optimizer.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <typeinfo>
#include <utility>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/optim/device_scale.h"
#include "pipeline/window_gradients.h"

namespace holdfast {
namespace detail {

// Whether gradients overflowed. The flag may still be on its way from the device to the host.
class Decision {
 public:
  explicit Decision(const at::Tensor& found_inf)
      : host_(at::empty({}, at::TensorOptions(at::kFloat).pinned_memory(found_inf.is_cuda()))) {
    host_.copy_(found_inf.squeeze(), /*non_blocking=*/true);
    if (!found_inf.is_cuda()) return;
    arrived_.emplace(c10::DeviceType::CUDA);
    arrived_->record(c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(found_inf.device()));
  }
  /// Waits for the device.
  bool overflowed() const {
    if (arrived_) arrived_->synchronize();
    return host_.item<float>() != 0;
  }

 private:
  at::Tensor host_;
  std::optional<c10::Event> arrived_;
};

}  // namespace detail

namespace {

using storage::StatusCode;
using Place = Stage::Place;

[[noreturn]] void refuse(const std::string& sentence) { throw Error(StatusCode::invalid, sentence); }

// Why a stage of the place `earlier` must precede those of later places.
const char* reason_for(Place earlier) {
  switch (earlier) {
    case Place::exchange:
      return "gradients are averaged during the backward pass, before anything reads them";
    case Place::precision:
      return "gradients must be unscaled before anything reads them";
    case Place::window:
      return "a window's gradients must be complete before anything reads them";
    case Place::gradients:
      return "gradients must be final before the learning rate of their step is set";
    case Place::schedule:
      return "the averages are computed from the parameters after the optimizer's step";
    default:
      return "";
  }
}

void require_order(const std::vector<std::shared_ptr<Stage>>& stages) {
  const Stage* before = nullptr;
  std::set<std::string> names;
  std::map<Place, const Stage*> once;
  for (const auto& stage : stages) {
    if (!stage) refuse("a stage of the pipeline is null");
    if (!names.insert(stage->name()).second) {
      refuse(
          fmt::format("the pipeline has two stages called {}: remove one, or give one another name()", stage->name()));
    }
    const Place place = stage->place();
    if (place == Place::anywhere) continue;
    const bool alone = place != Place::gradients;
    if (alone && !once.emplace(place, stage.get()).second) {
      refuse(fmt::format("the pipeline has {} and {}, which do the same work: keep one", once[place]->name(),
                         stage->name()));
    }
    if (before != nullptr && place < before->place()) {
      refuse(fmt::format("{0} comes after {1} in the pipeline: move {0} before {1}, because {2}", stage->name(),
                         before->name(), reason_for(place)));
    }
    before = stage.get();
  }
}

void require_optimizer(const StageContext& context) {
  if (dynamic_cast<const torch::optim::LBFGS*>(&context.optimizer) != nullptr) {
    refuse(
        "LBFGS calls the loss several times in one step, which a pipeline's windows and ranks cannot follow: write the "
        "plain loop, optimizer.step(closure)");
  }
  std::set<const void*> known;
  for (const auto& parameter : context.net.parameters()) known.insert(parameter.unsafeGetTensorImpl());
  const auto& groups = context.optimizer.param_groups();
  for (std::size_t group = 0; group < groups.size(); ++group) {
    for (std::size_t i = 0; i < groups[group].params().size(); ++i) {
      if (known.contains(groups[group].params()[i].unsafeGetTensorImpl())) continue;
      refuse(
          fmt::format("parameter {} of the optimizer's group {} does not belong to the pipeline's module, so its "
                      "gradient would be neither averaged nor saved: register it in the module",
                      i, group));
    }
  }
}

}  // namespace

struct Pipeline::Impl {
  Impl(StageContext given, std::vector<AnyStage> list) : context(std::move(given)), window(context.parameters) {
    if (!context.say) context.say = [](const std::string&) {};  // stages call it without a check
    for (const AnyStage& stage : list) stages.push_back(stage.get());
    require_order(stages);
    require_optimizer(context);
    for (const auto& stage : stages) {
      if (std::exchange(stage->attached_, true)) {
        refuse(fmt::format("stage {} already belongs to another pipeline: make one for each", stage->name()));
      }
      stage->attach(context);
      State fresh;
      stage->save(fresh);
      if (!fresh.tensors().empty() || !fresh.values().empty()) always_saved.insert(stage->name());
    }
    scaled = dynamic_cast<TakesDeviceScale*>(&context.optimizer);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& stage : stages) names.push_back(stage->name());
    return names;
  }

  // The stages that the checkpoint's pipeline had. Older checkpoints do not list them: there a stage without state
  // cannot be distinguished from a missing one.
  std::set<std::string> stages_of(const State& own) const {
    if (own.has("stages")) {
      const auto listed = own.get<std::vector<std::string>>("stages");
      return {listed.begin(), listed.end()};
    }
    std::set<std::string> known;
    for (const auto& stage : stages) {
      if (own.has("stage." + stage->name()) || !always_saved.contains(stage->name())) known.insert(stage->name());
    }
    const State saved = own.nested("stage");
    const auto add_owner = [&](const std::string& key) {
      const bool is_here = std::any_of(stages.begin(), stages.end(),
                                       [&](const auto& stage) { return key.starts_with(stage->name() + "."); });
      if (!is_here) known.insert(key.substr(0, key.find('.')));
    };
    for (const auto& [key, tensor] : saved.tensors()) add_owner(key);
    for (const auto& [key, value] : saved.values()) add_owner(key);
    return known;
  }

  // Stages may be added or removed between two starts of a program: a new one starts from its initial state, and the
  // state of a removed one is left out. Both are logged.
  void load_stages(const State& own) {
    std::set<std::string> gone = stages_of(own);
    for (const auto& stage : stages) {
      if (gone.erase(stage->name()) > 0) {
        stage->load(own.nested("stage." + stage->name()));
      } else {
        say(fmt::format("stage {} of the pipeline is not in the checkpoint: it starts from its initial state",
                        stage->name()));
      }
    }
    for (const std::string& name : gone) {
      say(fmt::format(
          "stage {} of the checkpoint is not in the pipeline: its state is left out, but what it changed, such as a "
          "learning rate, stays changed",
          name));
    }
  }

  // An update is over, and whether the optimizer stepped is known.
  void count(bool stepped) const {
    ++(stepped ? updates : skipped);
    skipped_in_a_row = stepped ? 0 : skipped_in_a_row + 1;
    if (skipped_in_a_row != kHopeless) return;
    say(fmt::format(
        "the last {} updates were all skipped because gradients were inf or nan at every loss scale, so the "
        "loss itself overflows: check the data and the learning rate, or use bf16",
        kHopeless));
  }

  // Counts the update before, if its outcome was only on the device.
  void settle() const {
    if (!undecided) return;
    count(!undecided->overflowed());
    undecided.reset();
  }

  void say(const std::string& sentence) const {
    if (context.say) context.say(sentence);
  }

  double loss_scale() const {
    double scale = 1;
    for (const auto& stage : stages) scale *= stage->loss_scale();
    return scale;
  }

  // Gradients of other parameters would be neither averaged nor cleared: each step would add to them.
  void require_known_gradients() const {
    for (const auto& group : context.optimizer.param_groups()) {
      for (const at::Tensor& parameter : group.params()) {
        if (!parameter.grad().defined() || window.knows(parameter)) continue;
        std::string name = "of the optimizer";
        for (const auto& named : context.net.named_parameters()) {
          if (named.value().is_same(parameter)) name = named.key();
        }
        refuse(fmt::format(
            "parameter {} has a gradient now, but was frozen or missing when the pipeline was made: make the "
            "pipeline while every parameter that will be trained requires gradients, and freeze "
            "parameters afterwards (with Ddp, set find_unused)",
            name));
      }
    }
  }

  static constexpr std::uint64_t kHopeless = 100;  // the scale halves each time: 2^16 is 2^-84 by then

  StageContext context;
  std::vector<std::shared_ptr<Stage>> stages;
  std::set<std::string> always_saved;  // stages that have state before their first step
  TakesDeviceScale* scaled = nullptr;  // the optimizer, if it takes found_inf on the device
  MicroBatch micro;
  WindowGradients window;
  bool inside = false;         // between begin() and update()
  bool went_backward = false;  // ever, in this process
  bool was_updated = false;    // ever, in this process
  at::Tensor last_loss;
  mutable std::uint64_t updates = 0;
  mutable std::uint64_t skipped = 0;
  mutable std::uint64_t skipped_in_a_row = 0;
  mutable std::shared_ptr<const detail::Decision> undecided;  // of the last update
};

Pipeline::Pipeline(StageContext context, std::vector<AnyStage> stages)
    : impl_(std::make_shared<Impl>(std::move(context), std::move(stages))) {}

bool Pipeline::Outcome::stepped() const { return window_ended_ && (!decision_ || !decision_->overflowed()); }

std::unique_ptr<Pipeline::ScopesEnd> Pipeline::begin(const StepFacts& step, Site site) {
  Impl& self = *impl_;
  self.micro = MicroBatch{.step = step, .site = site, .share = step.weight};
  for (const auto& stage : self.stages) stage->begin(self.micro);
  // The program may leave out an update on purpose; leaving out all of them is a mistake.
  if (self.micro.first && self.went_backward && !self.was_updated) {
    refuse(
        "a window of pipeline.backward() is complete and pipeline.update() was never called, so nothing is trained: "
        "call it after each backward()");
  }
  if (self.micro.first) self.window.drop();
  self.window.put_away();
  self.inside = true;
  auto scopes = std::make_unique<ScopesEnd>();
  for (const auto& stage : self.stages) scopes->scopes.push_back(stage->forward_scope(self.micro));
  return scopes;
}

void Pipeline::backward(const at::Tensor& loss, Site site) {
  Impl& self = *impl_;
  if (!self.inside) refuse("pipeline.backward() was called without a pipeline.forward() before it");
  if (!loss.defined() || loss.numel() != 1) refuse("the pipeline's function must give the mean loss: one number");
  if (!loss.requires_grad()) {
    refuse(
        "the loss of the pipeline's function does not depend on any parameter, so a backward pass is impossible: it "
        "was detached, or computed under a NoGradGuard or without the module's parameters");
  }
  self.window.multiply(self.micro.earlier);
  self.window.put_back();
  self.last_loss = loss.detach();
  at::Tensor scaled = self.micro.share == 1 ? loss : loss * self.micro.share;
  for (const auto& stage : self.stages) stage->before_backward(self.micro, scaled);
  try {
    if (self.micro.last) {
      self.context.group.operation(
          "backward", [&] { scaled.backward(); }, site);
    } else {
      scaled.backward();
    }
  } catch (...) {
    // Some parameters already have this batch's gradient and others do not.
    self.window.drop();
    for (const auto& stage : self.stages) stage->drop_window();
    if (!self.micro.first) self.say("a backward pass failed: the earlier batches of its window are dropped too");
    // The other ranks' windows would continue without this one's gradients, so with several ranks all stop.
    self.context.group.operation(
        "backward", [] { throw; }, site);
    throw;
  }
  for (const auto& stage : self.stages) stage->after_backward(self.micro);
  self.went_backward = true;
}

Pipeline::Outcome Pipeline::update(Site) {
  Impl& self = *impl_;
  const bool was_inside = std::exchange(self.inside, false);
  const bool was_updated = std::exchange(self.was_updated, true);
  Outcome outcome;
  // Without a backward no window ever ends: the second update reports it.
  if (was_inside && !self.went_backward && (self.micro.last || was_updated)) {
    refuse("pipeline.update() was called without a pipeline.backward() before it, so there are no gradients");
  }
  if (!self.micro.last || !self.window.are_in_place()) {
    if (self.window.are_in_place()) self.window.put_away();
    return outcome;
  }
  const at::NoGradGuard no_grad;
  self.settle();
  self.require_known_gradients();
  Update update;
  update.number = self.updates;
  update.gradients = self.window.defined();
  for (const auto& stage : self.stages) stage->before_update(update);

  at::Tensor stepped;  // undefined: the optimizer stepped
  bool step = true;
  if (!update.found_inf.defined()) {
    self.context.optimizer.step();
  } else if (self.scaled != nullptr) {
    self.scaled->step_scaled(at::Tensor(), update.found_inf);
    stepped = (1 - update.found_inf).squeeze();
    outcome.decision_ = self.undecided =
        std::make_shared<detail::Decision>(update.found_inf);  // read at the next update
  } else {
    // LibTorch's own optimizers cannot skip a step on the device; Python's GradScaler reads the flag here too.
    outcome.decision_ = std::make_shared<detail::Decision>(update.found_inf);
    step = !outcome.decision_->overflowed();
    if (step) self.context.optimizer.step();
    stepped = at::full({}, step ? 1.f : 0.f);
  }
  if (!self.undecided) self.count(step);
  for (const auto& stage : self.stages) stage->after_update(update, stepped);
  self.window.drop();
  outcome.window_ended_ = true;
  return outcome;
}

double Pipeline::loss() const {
  if (!impl_->last_loss.defined()) refuse("pipeline.loss() was called before the first step");
  return impl_->last_loss.item<double>();
}

double Pipeline::lr() const { return impl_->context.optimizer.param_groups().front().options().get_lr(); }

std::uint64_t Pipeline::updates() const {
  impl_->settle();
  return impl_->updates;
}

std::uint64_t Pipeline::skipped() const {
  impl_->settle();
  return impl_->skipped;
}

const std::vector<std::shared_ptr<Stage>>& Pipeline::stages() const { return impl_->stages; }
void Pipeline::throw_no_stage() const { refuse("the pipeline has no stage of that type"); }

// State: updates, skipped, window (open or not), ranks; stage.<name>.…; inside a window loss_scale,
// gradient.<parameter>.
void Pipeline::save(State& state) const {
  const Impl& self = *impl_;
  self.settle();
  state.put("updates", self.updates).put("skipped", self.skipped).put("window", self.window.is_open());
  state.put("ranks", self.context.group.world_size());
  state.put("stages", self.names());
  for (const auto& stage : self.stages) {
    State part = state.nested("stage." + stage->name());
    stage->save(part);
  }
  if (!self.window.is_open()) return;
  state.put("loss_scale", self.loss_scale());
  self.window.save(state);
}

void Pipeline::load(const State& state) { load_shares(state, {state}); }

void Pipeline::load_shares(const State& own, const std::vector<State>& shares) {
  Impl& self = *impl_;
  self.undecided.reset();
  own.get_to("updates", self.updates);
  own.get_to("skipped", self.skipped);
  self.load_stages(own);
  self.window.drop();
  if (!own.get<bool>("window")) return;
  self.window.load(shares);
  // The window ends in a mean over the present ranks: gradients of N ranks will be divided by M, not by N. The loss
  // scale may also differ, if the run continues in another precision.
  self.window.multiply(self.context.group.world_size() / own.get<double>("ranks"));
  const double rescale = self.loss_scale() / own.get<double>("loss_scale");
  self.window.multiply(rescale);
  if (rescale == 1 || self.window.are_finite()) return;
  // The window's update would have been skipped. Without a loss scale nothing would detect the overflow later.
  self.window.load({});
  self.say(
      "the run was saved inside a window whose gradients had overflowed at the loss scale of that time, which has "
      "changed since: these gradients are dropped, and the window continues with the next batches");
}

}  // namespace holdfast
