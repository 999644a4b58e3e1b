// The gradients of an incomplete window. Between its pipeline's steps they are kept apart from the parameters, whose
// gradients other code may change: zero_grad(), or another pipeline's backward, such as a GAN's generator loss through
// the discriminator.
//
// State: gradient.<parameter>, for each defined gradient.
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

  /// Whether the parameters hold them now.
  bool are_in_place() const { return in_place_; }
  /// Whether a window has gradients so far.
  bool is_open() const { return in_place_ || !apart_.empty(); }
  bool knows(const at::Tensor& parameter) const { return known_.contains(parameter.unsafeGetTensorImpl()); }
  /// The defined gradients of the parameters.
  std::vector<at::Tensor> defined() const;

  /// Before a forward pass: the parameters have no gradients.
  void put_away();
  /// Before a backward pass, which adds to them.
  void put_back();
  /// The window is over, or is given up.
  void drop();

  void save(State& state) const;
  /// Adds the shares of a window and keeps the sum apart from the parameters.
  void load(const std::vector<State>& shares);
  void multiply(double factor);
  bool are_finite() const;

 private:
  void clear();

  std::vector<NamedParameter> parameters_;
  std::unordered_set<const void*> known_;
  std::vector<at::Tensor> apart_;  // one for each parameter; empty without a window, or while in place
  bool in_place_ = false;
};

}  // namespace holdfast
