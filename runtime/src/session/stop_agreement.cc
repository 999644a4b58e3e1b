#include "session/stop_agreement.h"

#include "ranks/group_control.h"

namespace holdfast {

std::string StopAgreement::own_stop() const {
  const auto signal = signals.stop_signal();
  return signal ? std::string(signal_name(*signal)) : program_stop ? *program_stop : clock_stop.value_or("");
}

StopRequest StopAgreement::at_boundary(Group& group, std::uint64_t step, std::uint64_t last, const std::string& due,
                                       Group::Site site) {
  StopRequest wish{.stop = own_stop(), .save = signals.take_save_request() ? "SIGUSR1" : due};
  if (group.world_size() > 1) {
    // Sends each wish once, because the answer comes at a later step.
    if (stop_was_wished_) wish.stop.clear();
    if (wish_is_out_) wish.save.clear();
    stop_was_wished_ |= !wish.stop.empty();
    wish_is_out_ |= !wish.empty();
    wish = detail::GroupControl(group).at_step(step, last, wish, site);
    if (!wish.empty()) wish_is_out_ = false;
  }
  if (!wish.save.empty()) agreed_.save = wish.save;
  if (!wish.stop.empty()) agreed_.stop = wish.stop;
  return agreed_;
}

}  // namespace holdfast
