// A loop of the program at the session's boundaries. The ranges that the program holds share it; it does nothing once
// its loop is over.
#pragma once

#include <memory>
#include <utility>

#include "session/session_impl.h"

namespace holdfast {

class Session::Impl::SessionLoop final : public detail::Loop {
 public:
  SessionLoop(Impl& session, std::shared_ptr<LoopPosition> position, Site site)
      : session_(session), position_(std::move(position)), site_(site) {}
  bool more() const override { return !is_over_ && !session_.stop && !position_->at_end(); }
  StepInfo begin_step() override;
  void end_step() override;
  void begin_epoch() override;
  void begin_epoch_steps() override;
  void leave_epoch_steps() override;
  void end_epoch() override;
  void complete() override;
  void leave(bool thrown) override;
  bool stopping() const override { return is_over_ || session_.stop || position_->at_end(); }
  c10::Device device() const override { return session_.device.device; }
  void load_again_in_epoch(bool again) { load_again_in_epoch_ = again; }
  const LoopPosition& position() const { return *position_; }
  const Site& site() const { return site_; }

 private:
  void leave_now(bool thrown);
  void count_step();
  void end(LoopPosition::Over how);

  Impl& session_;
  std::shared_ptr<LoopPosition> position_;
  Site site_;
  bool load_again_in_epoch_ = false;
  bool is_over_ = false;
};

}  // namespace holdfast
