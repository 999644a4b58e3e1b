// The gradients of a window that is not complete yet. Between its pipeline's steps they are kept apart from the
// parameters, whose gradients anybody may change: another pipeline's backward, as a GAN's generator goes through the
// discriminator, or zero_grad().
//
// State: gradient.<parameter>, where there is one.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_set>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"
#include "holdfast/runtime/serialize/state.h"

namespace holdfast {

class WindowGradients {
 public:
  explicit WindowGradients(const std::vector<NamedParameter>& parameters);

  /// Whether they are the parameters' now.
  bool are_in_place() const { return in_place_; }
  /// Whether a window has any so far.
  bool is_open() const { return in_place_ || !apart_.empty(); }
  bool knows(const at::Tensor& parameter) const { return known_.contains(parameter.unsafeGetTensorImpl()); }
  /// Those that are in place.
  std::vector<at::Tensor> defined() const;

  /// Before a forward pass: the parameters have no gradients.
  void put_away();
  /// Before a backward pass, which adds to them.
  void put_back();
  /// The window is over, or in vain.
  void drop();

  void save(State& state) const;
  /// Their sum over the shares of a window, apart.
  void load(const std::vector<State>& shares);
  void multiply(double factor);
  bool are_finite() const;

 private:
  void clear();

  std::vector<NamedParameter> parameters_;
  std::unordered_set<const void*> known_;
  std::vector<at::Tensor> apart_;  // one for each parameter; empty where there are none
  bool in_place_ = false;
};

}  // namespace holdfast
