#include "tracked_schedulers.h"

#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>

#include <functional>

#include "private_member.h"

namespace holdfast {
namespace {

using torch::optim::LRScheduler;
using torch::optim::ReduceLROnPlateauScheduler;

// LRScheduler's counter is protected: a derived class may name the member, and a pointer to it works on any scheduler.
struct LRSchedulerMembers : LRScheduler {
  static unsigned& step_count(LRScheduler& scheduler) { return scheduler.*(&LRSchedulerMembers::step_count_); }
};

// ReduceLROnPlateauScheduler's are private, and it has no accessor.
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
template struct Expose<Best, &ReduceLROnPlateauScheduler::best>;
template struct Expose<LastEpoch, &ReduceLROnPlateauScheduler::last_epoch>;
template struct Expose<BadEpochs, &ReduceLROnPlateauScheduler::num_bad_epochs>;
template struct Expose<CooldownCounter, &ReduceLROnPlateauScheduler::cooldown_counter>;

class TrackedScheduler : public TrackedItem {
 public:
  TrackedScheduler(std::string name, std::string kind) : TrackedItem(std::move(name)), kind_(std::move(kind)) {}

  void capture(Capture& capture) const override {
    nlohmann::json value = read();
    value["kind"] = kind_;
    capture.value(name(), value);
  }

  void plan(Plan& plan) override {
    const auto saved = plan.need_value(name(), kind_);
    if (!saved) return;
    const bool fits = saved->is_object() && saved->value("kind", nlohmann::json()) == kind_ && has_all_numbers(*saved);
    if (!fits) {
      plan.differs(Difference::Kind::value, name(),
                   "is a " + kind_ + " in the program and something else in the checkpoint");
      return;
    }
    plan.apply([this, value = *saved](std::vector<std::string>&) { write(value); });
  }

 private:
  virtual nlohmann::json read() const = 0;
  virtual void write(const nlohmann::json& value) = 0;

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
  StepCount(std::string name, ObjectReference<LRScheduler> scheduler)
      : TrackedScheduler(std::move(name), "LRScheduler"), scheduler_(std::move(scheduler)) {
    (void)scheduler_now();
  }

  const void* object() const override { return scheduler_.get(); }

 private:
  nlohmann::json read() const override { return {{"step_count", LRSchedulerMembers::step_count(scheduler_now())}}; }
  void write(const nlohmann::json& value) override {
    LRSchedulerMembers::step_count(scheduler_now()) = value.at("step_count").get<unsigned>();
  }

  LRScheduler& scheduler_now() const { return held_by(scheduler_, "scheduler", name()); }

  const ObjectReference<LRScheduler> scheduler_;
};

class Plateau : public TrackedScheduler {
 public:
  Plateau(std::string name, ObjectReference<ReduceLROnPlateauScheduler> scheduler)
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

  ReduceLROnPlateauScheduler& scheduler_now() const { return held_by(scheduler_, "scheduler", name()); }

  const ObjectReference<ReduceLROnPlateauScheduler> scheduler_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name, ObjectReference<LRScheduler> scheduler) {
  return std::make_unique<StepCount>(std::move(name), std::move(scheduler));
}

std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name,
                                                    ObjectReference<ReduceLROnPlateauScheduler> scheduler) {
  return std::make_unique<Plateau>(std::move(name), std::move(scheduler));
}

}  // namespace holdfast
