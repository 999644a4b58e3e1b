// Requests to save or to stop that only one rank may know of (a signal, a call of session.stop(), rank 0's clocks), and
// how all ranks come to act on them at one boundary. Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/runtime/ranks/group.h"
#include "policy/stop_request.h"
#include "process/signals.h"

namespace holdfast {

class StopAgreement {
 public:
  /// `answers`: this rank reports a signal that it receives.
  explicit StopAgreement(bool answers) : signals(answers) {}

  // The session also ends the watch of these signals, and sets program_stop; so does a save that finds NaN.
  SignalWatch signals;
  std::optional<std::string> program_stop;  // the reason given to session.stop()
  std::optional<std::string> clock_stop;    // why this machine's time is over: rank 0's clock, the cloud's notice

  /// Why this rank wants to stop; empty: it does not.
  std::string own_stop() const;

  /// `step` is done and the loop has steps up to `last`; `due`: why rank 0's clock asks for a save, or empty. Returns
  /// what all ranks must do here, with what they agreed on before and have not done yet.
  StopRequest at_boundary(Group& group, std::uint64_t step, std::uint64_t last, const std::string& due,
                          Group::Site site);
  /// The saves that at_boundary() asked for are done.
  void saved() { agreed_.save.clear(); }

 private:
  StopRequest agreed_;
  bool wish_is_out_ = false;  // this rank sent a request and has no answer yet
  bool stop_was_wished_ = false;
};

}  // namespace holdfast
