#include "state/tracked_schedulers.h"

#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>
#include <torch/optim/schedulers/step_lr.h>

#include <functional>

#include "libtorch/private_member.h"

namespace holdfast {
namespace {

using torch::optim::LRScheduler;
using torch::optim::ReduceLROnPlateauScheduler;
using torch::optim::StepLR;

// LRScheduler's counter is protected: a derived class may name the member, and a pointer to it works on any scheduler.
struct LRSchedulerMembers : LRScheduler {
  static unsigned& step_count(LRScheduler& scheduler) { return scheduler.*(&LRSchedulerMembers::step_count_); }
};

// ReduceLROnPlateauScheduler's counters are private, and it has no accessors.
struct Best {
  friend auto member_of(Best);
};
struct LastEpoch {
  friend auto member_of(LastEpoch);
};
struct BadEpochs {
  friend auto member_of(BadEpochs);
};
struct CooldownCounter {
  friend auto member_of(CooldownCounter);
};
struct Mode {
  friend auto member_of(Mode);
};
struct Factor {
  friend auto member_of(Factor);
};
struct Patience {
  friend auto member_of(Patience);
};
struct Threshold {
  friend auto member_of(Threshold);
};
struct ThresholdMode {
  friend auto member_of(ThresholdMode);
};
struct Cooldown {
  friend auto member_of(Cooldown);
};
struct MinRates {
  friend auto member_of(MinRates);
};
struct Eps {
  friend auto member_of(Eps);
};
struct StepSize {
  friend auto member_of(StepSize);
};
struct Gamma {
  friend auto member_of(Gamma);
};
template struct Expose<Best, &ReduceLROnPlateauScheduler::best>;
template struct Expose<LastEpoch, &ReduceLROnPlateauScheduler::last_epoch>;
template struct Expose<BadEpochs, &ReduceLROnPlateauScheduler::num_bad_epochs>;
template struct Expose<CooldownCounter, &ReduceLROnPlateauScheduler::cooldown_counter>;
template struct Expose<Mode, &ReduceLROnPlateauScheduler::mode>;
template struct Expose<Factor, &ReduceLROnPlateauScheduler::factor>;
template struct Expose<Patience, &ReduceLROnPlateauScheduler::patience>;
template struct Expose<Threshold, &ReduceLROnPlateauScheduler::threshold>;
template struct Expose<ThresholdMode, &ReduceLROnPlateauScheduler::threshold_mode>;
template struct Expose<Cooldown, &ReduceLROnPlateauScheduler::cooldown>;
template struct Expose<MinRates, &ReduceLROnPlateauScheduler::min_lrs>;
template struct Expose<Eps, &ReduceLROnPlateauScheduler::eps>;
template struct Expose<StepSize, &StepLR::step_size_>;
template struct Expose<Gamma, &StepLR::gamma_>;

class TrackedScheduler : public TrackedItem {
 public:
  TrackedScheduler(std::string name, std::string kind) : TrackedItem(std::move(name)), kind_(std::move(kind)) {}

  void capture(Capture& capture) const override {
    nlohmann::json value = read();
    value["kind"] = kind_;
    if (const nlohmann::json given = constants(); !given.empty()) value["constants"] = given;
    capture.value(name(), value);
  }

  void plan(RestorePlan& plan) override {
    const auto saved = plan.need_value(name(), kind_);
    if (!saved) return;
    const bool fits = saved->is_object() && saved->value("kind", nlohmann::json()) == kind_ && has_all_numbers(*saved);
    if (!fits) {
      plan.differs(Difference::Kind::value, name(),
                   "is a " + kind_ + " in the program, but another kind of object in the checkpoint");
      return;
    }
    note_edits(plan, saved->value("constants", nlohmann::json::object()));
    plan.apply([this, value = *saved](std::vector<std::string>&) { write(value); });
  }

 private:
  virtual nlohmann::json read() const = 0;
  virtual void write(const nlohmann::json& value) = 0;
  /// The constructor's arguments, as far as they are known. They are the code's and never restored.
  virtual nlohmann::json constants() const = 0;

  void note_edits(RestorePlan& plan, const nlohmann::json& saved) const {
    const nlohmann::json code = constants();
    for (const auto& [key, value] : code.items()) {
      if (!saved.contains(key) || saved.at(key) == value) continue;
      plan.fit.notes.push_back(name() + " " + key + ": " + value.dump() + " in the code, " + saved.at(key).dump() +
                               " in the checkpoint: the code wins");
    }
  }

  bool has_all_numbers(const nlohmann::json& saved) const {
    const nlohmann::json now = read();
    for (const auto& [key, value] : now.items()) {
      if (!saved.contains(key) || !saved.at(key).is_number()) return false;
    }
    return true;
  }

  std::string kind_;
};

class StepCount : public TrackedScheduler {
 public:
  StepCount(std::string name, detail::ObjectReference<LRScheduler> scheduler)
      : TrackedScheduler(std::move(name), "LRScheduler"), scheduler_(std::move(scheduler)) {
    (void)scheduler_now();
  }

  const void* object() const override { return scheduler_.get(); }

 private:
  nlohmann::json read() const override { return {{"step_count", LRSchedulerMembers::step_count(scheduler_now())}}; }
  void write(const nlohmann::json& value) override {
    LRSchedulerMembers::step_count(scheduler_now()) = value.at("step_count").get<unsigned>();
  }

  // Other schedulers are the program's own classes.
  nlohmann::json constants() const override {
    const auto* const step_lr = dynamic_cast<const StepLR*>(&scheduler_now());
    if (step_lr == nullptr) return nlohmann::json::object();
    return {{"step_size", step_lr->*member_of(StepSize())}, {"gamma", step_lr->*member_of(Gamma())}};
  }

  LRScheduler& scheduler_now() const { return held_by(scheduler_, "scheduler", name()); }

  const detail::ObjectReference<LRScheduler> scheduler_;
};

class Plateau : public TrackedScheduler {
 public:
  Plateau(std::string name, detail::ObjectReference<ReduceLROnPlateauScheduler> scheduler)
      : TrackedScheduler(std::move(name), "ReduceLROnPlateauScheduler"), scheduler_(std::move(scheduler)) {
    (void)scheduler_now();
  }

  const void* object() const override { return scheduler_.get(); }

 private:
  nlohmann::json read() const override {
    const ReduceLROnPlateauScheduler& scheduler = scheduler_now();
    return {{"best", scheduler.*member_of(Best())},
            {"last_epoch", scheduler.*member_of(LastEpoch())},
            {"num_bad_epochs", scheduler.*member_of(BadEpochs())},
            {"cooldown_counter", scheduler.*member_of(CooldownCounter())}};
  }
  void write(const nlohmann::json& value) override {
    ReduceLROnPlateauScheduler& scheduler = scheduler_now();
    scheduler.*member_of(Best()) = value.at("best").get<float>();
    scheduler.*member_of(LastEpoch()) = value.at("last_epoch").get<int>();
    scheduler.*member_of(BadEpochs()) = value.at("num_bad_epochs").get<int>();
    scheduler.*member_of(CooldownCounter()) = value.at("cooldown_counter").get<int>();
  }

  nlohmann::json constants() const override {
    const ReduceLROnPlateauScheduler& scheduler = scheduler_now();
    const bool is_min = scheduler.*member_of(Mode()) == ReduceLROnPlateauScheduler::min;
    const bool is_rel = scheduler.*member_of(ThresholdMode()) == ReduceLROnPlateauScheduler::rel;
    return {{"mode", is_min ? "min" : "max"},
            {"factor", scheduler.*member_of(Factor())},
            {"patience", scheduler.*member_of(Patience())},
            {"threshold", scheduler.*member_of(Threshold())},
            {"threshold_mode", is_rel ? "rel" : "abs"},
            {"cooldown", scheduler.*member_of(Cooldown())},
            {"min_lrs", scheduler.*member_of(MinRates())},
            {"eps", scheduler.*member_of(Eps())}};
  }

  ReduceLROnPlateauScheduler& scheduler_now() const { return held_by(scheduler_, "scheduler", name()); }

  const detail::ObjectReference<ReduceLROnPlateauScheduler> scheduler_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name, detail::ObjectReference<LRScheduler> scheduler) {
  return std::make_unique<StepCount>(std::move(name), std::move(scheduler));
}

std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name,
                                                    detail::ObjectReference<ReduceLROnPlateauScheduler> scheduler) {
  return std::make_unique<Plateau>(std::move(name), std::move(scheduler));
}

}  // namespace holdfast
