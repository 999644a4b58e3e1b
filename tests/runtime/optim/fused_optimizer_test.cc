// The fused optimizers compute the same results and keep the same state as LibTorch's, and a step that the device skips
// has no effect.
#include <torch/torch.h>

#include <chrono>
#include <vector>

#include "holdfast/runtime/optim/fused_optimizers.h"
#include "optim/optimizer_twins.h"
#include "tracked_run.h"

using holdfast::RunState;
using namespace optimizer_twins;

namespace {

// Each step rounds a parameter a few times, by at most half a unit of its size, in an order other than LibTorch's. Over
// 50 steps such differences walk at random to about √50 units, and some farther; the largest seen is 2.7 on a CPU and
// 11.4 on an H200.
constexpr double kUnits = 16;
// CUDA's float32 kernels hold 1 - 0.999 in float32, so with a relative error of 1.3e-5, 110 units. It cancels in the
// parameters, not in exp_avg_sq.
constexpr double kCudaUnits = 150;

double bound(at::Device device, at::ScalarType dtype) {
  return device.is_cuda() && dtype == at::kFloat ? kCudaUnits : kUnits;
}

void equals_libtorchs(at::Device device) {
  for (const auto& [name, plain, fused] : all_twins()) {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      CAPTURE(name, dtype);
      Program expected(plain, device, dtype), program(fused, device, dtype);
      int done = 0;
      for (const int steps : {1, 4, 50}) {
        expected.steps(done, steps);
        program.steps(done, steps);
        done = steps;
        CAPTURE(steps);
        CHECK(distance(program, expected, dtype) < bound(device, dtype));
      }
    }
  }
}

void skipped_steps_never_were(at::Device device) {
  for (const auto& [name, plain, fused] : all_twins()) {
    CAPTURE(name);
    Program fresh(fused, device), program(fused, device), expected(fused, device);
    program.scaled_steps(0, 2, {0, 1});
    CHECK(other_parts(bytes_of(program.state), bytes_of(fresh.state)) == kNone);

    // Not settled in between, and the first step of the late parameter is one of those skipped.
    program.scaled_steps(2, 20, {2, 4, 9, 10});
    for (const int taken : {3, 5, 6, 7, 8}) expected.steps(taken, taken + 1);
    expected.steps(11, 20);
    CHECK(other_parts(bytes_of(program.state), bytes_of(expected.state)) == kNone);
    program.steps(20, 22);
    expected.steps(20, 22);
    CHECK(other_parts(bytes_of(program.state), bytes_of(expected.state)) == kNone);
  }
}

void scale_is_divided_out(at::Device device) {
  for (const auto& [name, plain, fused] : all_twins()) {
    CAPTURE(name);
    Program expected(fused, device), program(fused, device);
    for (int i = 0; i < 5; ++i) {
      expected.set_gradients(i);
      expected.optimizer->step();
      program.set_gradients(i, 1024);  // a power of two, so that nothing is rounded
      program.scaled().step_scaled(torch::full({}, 1024.0, device), torch::zeros({1}, device));
    }
    // CUDA's kernels with a scale and without one contract multiplications and additions differently.
    if (device.is_cuda()) {
      (void)bytes_of(program.state);  // brings the host's counts up to date
      CHECK(distance(program, expected, at::kFloat) < kUnits);
    } else {
      CHECK(other_parts(bytes_of(program.state), bytes_of(expected.state)) == kNone);
    }
    for (std::size_t i = 0; i < program.parameters.size(); ++i) {
      CAPTURE(i);
      CHECK(program.parameters[i].grad().defined() == expected.parameters[i].grad().defined());
      if (!expected.parameters[i].grad().defined()) continue;
      CHECK(torch::equal(program.parameters[i].grad(), expected.parameters[i].grad()));
    }
  }
}

void resume_is_bit_identical(at::Device device) {
  for (const auto& [name, plain, fused] : all_twins()) {
    CAPTURE(name);
    for (const std::vector<int>& skips : {std::vector<int>{}, {0, 3}, {0, 5, 6}, {0, 1, 2, 3, 4, 5}}) {
      CAPTURE(skips);
      Program uninterrupted(fused, device);
      uninterrupted.scaled_steps(0, 6, skips);
      TrackedRun run;
      run.save(uninterrupted.state);
      const auto at_save = bytes_of(uninterrupted.state);
      uninterrupted.scaled_steps(6, 12, skips);

      Program resumed(fused, device, at::kFloat, 7);
      resumed.scaled_steps(0, 3, {1});  // its own state must be gone after the restore
      resumed.state.restore(run.newest());
      CHECK(other_parts(bytes_of(resumed.state), at_save) == kNone);
      resumed.scaled_steps(6, 12, skips);
      CHECK(other_parts(bytes_of(resumed.state), bytes_of(uninterrupted.state)) == kNone);
    }
  }
}

void loads_into_the_other(at::Device device) {
  for (const auto& [name, plain, fused] : all_twins()) {
    for (const bool from_plain : {true, false}) {
      CAPTURE(name, from_plain);
      Program uninterrupted(plain, device), saved(from_plain ? plain : fused, device);
      uninterrupted.steps(0, 8);
      saved.steps(0, 8);
      TrackedRun run;
      run.save(saved.state);

      Program resumed(from_plain ? fused : plain, device, at::kFloat, 7);
      resumed.steps(0, 2);
      CHECK(resumed.state.restore(run.newest()).notes.empty());
      CHECK(other_parts(bytes_of(resumed.state), bytes_of(saved.state)) == kNone);
      uninterrupted.steps(8, 16);
      resumed.steps(8, 16);
      CHECK(distance(resumed, uninterrupted, at::kFloat) < bound(device, at::kFloat));
    }
  }
}

}  // namespace

TEST_CASE("fused_optimizers_compute_the_same_as_libtorchs") { equals_libtorchs(at::kCPU); }

TEST_CASE("a_skipped_step_has_no_effect") { skipped_steps_never_were(at::kCPU); }

TEST_CASE("gradients_and_steps_are_unscaled") { scale_is_divided_out(at::kCPU); }

TEST_CASE("fused_optimizers_resume_bit_exactly_across_skipped_steps") { resume_is_bit_identical(at::kCPU); }

TEST_CASE("checkpoints_of_fused_and_libtorch_optimizers_are_interchangeable") { loads_into_the_other(at::kCPU); }

TEST_CASE("state_in_another_memory_format_is_converted") {
  const auto program = [](at::Tensor& parameter, bool fused) {
    parameter =
        torch::ones({2, 4, 3, 3}).contiguous(fused ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
    parameter.requires_grad_();
    return (fused ? adamw().fused : adamw().plain)({std::vector<at::Tensor>{parameter}});
  };
  const auto step = [](at::Tensor& parameter, optim::Optimizer& optimizer) {
    torch::manual_seed(3);
    parameter.mutable_grad() = at::empty_like(parameter).copy_(torch::randn(parameter.sizes())).detach();
    optimizer.step();
  };
  at::Tensor channels_last, contiguous;
  const auto plain = program(channels_last, false), fused = program(contiguous, true);
  RunState from, to;
  from.track("p", channels_last).track("optimizer", *plain);
  to.track("p", contiguous).track("optimizer", *fused);
  step(channels_last, *plain);
  TrackedRun run;
  run.save(from);
  to.restore(run.newest());
  step(channels_last, *plain);
  step(contiguous, *fused);
  CHECK(torch::allclose(contiguous, channels_last, 1e-6, 1e-6));
}

TEST_CASE("fused_optimizers_pass_the_same_checks_on_a_gpu", "[gpu]") {
  REQUIRE(torch::cuda::is_available());
  const at::Device gpu(at::kCUDA, 0);
  equals_libtorchs(gpu);
  skipped_steps_never_were(gpu);
  scale_is_divided_out(gpu);
  resume_is_bit_identical(gpu);
  loads_into_the_other(gpu);
}

TEST_CASE("a_scaled_step_does_not_wait_for_the_gpu", "[gpu]") {
  REQUIRE(torch::cuda::is_available());
  using Clock = std::chrono::steady_clock;
  const at::Device gpu(at::kCUDA, 0);
  const auto scale = torch::full({}, 1024.0, gpu), found_inf = torch::zeros({1}, gpu);
  const auto x = torch::randn({8192, 8192}, gpu);
  auto y = torch::empty_like(x);
  for (const auto& [name, plain, fused] : all_twins()) {
    CAPTURE(name);
    Program program(fused, gpu);
    program.steps(0, 6);                       // now memory is allocated
    for (const bool loaded : {false, true}) {  // the first use of a kernel loads it, which waits
      TrackedRun run;
      run.save(program.state);
      program.state.restore(run.newest());
      program.set_gradients(6);
      torch::cuda::synchronize();

      for (int i = 0; i < 20; ++i) torch::mm_out(y, x, x);
      const auto begin = Clock::now();
      program.scaled().step_scaled(scale, found_inf);  // takes over restored state
      program.scaled().step_scaled(scale, found_inf);
      const auto stepped = Clock::now();
      torch::cuda::synchronize();
      const auto done = Clock::now();
      CHECK((!loaded || (stepped - begin) * 4 < done - stepped));
    }
  }
}
