// The rounds of steps that the driver orders, and the times of their parts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "timing.h"

namespace encoder_bench {

using nlohmann::json;

/// Executes the driver's orders, one step of the training loop at a time, and keeps the times of the steps.
class Rounds {
 public:
  using Job = std::function<json(const std::string& order)>;
  /// `other` answers all orders except rounds.
  Rounds(c10::Device device, Job other) : device_(device), other_(std::move(other)) {}

  void ready(const torch::nn::Module& net);

  /// Call between steps. False: leave the loop.
  bool another_step();
  /// Whether this round's gradients are averaged over the ranks.
  bool exchanges() const { return exchanges_; }

  // Called within a step.
  void after_forward(const at::Tensor& loss) {
    loss_ = loss.detach();
    if (is_timed()) timed_.back().forward.emplace(device_);
  }
  void after_backward() {
    if (is_timed()) timed_.back().backward.emplace(device_);
  }
  void after_update() {
    if (is_timed()) timed_.back().update.emplace(device_);
  }
  /// Marks the time when the last gradient is computed: the rest of backward is waiting for the exchange.
  void mark_last_gradient_of(const at::Tensor& first_parameter) {
    first_parameter.register_hook([this](const at::Tensor&) {
      if (is_timed()) timed_.back().last_gradient.emplace(device_);
    });
  }

 private:
  struct StepMarks {
    Mark begin;
    std::optional<Mark> forward, last_gradient, backward, update;  // the ends of these phases
  };

  bool is_timed() const { return done_ > warm_ && !timed_.empty(); }

  void start_timing();
  void report();
  // Other groups take their turns on the same device.
  void leave_memory() const;

  c10::Device device_;
  Job other_;
  std::uint64_t warm_ = 0, steps_ = 0, done_ = 0;
  bool exchanges_ = true;
  std::vector<StepMarks> timed_;
  Clock::time_point begin_;
  at::Tensor loss_;
};

}  // namespace encoder_bench
