#include "holdfast/runtime/pipeline/stages/lr_schedule.h"

#include <fmt/format.h>
#include <torch/optim/optimizer.h>

namespace holdfast {

void LrSchedule::attach(StageContext& context) {
  group_ = &context.group;
  optimizer_ = &context.optimizer;
  say_ = context.say;
  for (const auto& group : optimizer_->param_groups()) initial_.push_back(group.options().get_lr());
}

void LrSchedule::before_update(Update& update) {
  const double factor = rate_.factor(update.number);
  auto& groups = optimizer_->param_groups();
  // A group that was added later begins with its own rate.
  while (initial_.size() < groups.size()) initial_.push_back(groups[initial_.size()].options().get_lr());
  for (std::size_t i = 0; i < groups.size(); ++i) groups[i].options().set_lr(initial_[i] * factor);
}

void LrSchedule::observe(double metric, Group::Site site) {
  if (group_ != nullptr) group_->compare("LrSchedule.observe", fmt::format("metric {}", metric), {}, site);
  rate_.observe(metric);
}

void LrSchedule::save(State& state) const { state.put("rate", rate_.state()).put("initial", initial_); }

void LrSchedule::load(const State& state) {
  const auto saved = state.get<nlohmann::json>("rate");
  if (const std::string edited = rate_.differences(saved); !edited.empty()) say_(edited);
  rate_.set_state(saved);
}

}  // namespace holdfast
