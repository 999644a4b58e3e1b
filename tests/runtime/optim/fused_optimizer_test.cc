// The fused optimizers compute the same results and keep the same state as LibTorch's, and a step that the device skips
// has no effect.
#include <torch/torch.h>

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>

#include "holdfast/runtime/optim/fused_optimizers.h"
#include "tracked_run.h"

using holdfast::RunState;
using holdfast::TakesDeviceScale;
namespace optim = torch::optim;

namespace {

using Groups = std::vector<optim::OptimizerParamGroup>;
using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(const Groups&)>;

/// One of LibTorch's optimizers and ours, with the same options; the second group gets its own options.
struct Twins {
  std::string name;
  MakeOptimizer plain;
  MakeOptimizer fused;
};

template <class Plain, class Fused, class Options>
Twins twins(std::string name, Options options) {
  const auto make = [options](auto* type, Groups groups) {
    using Optimizer = std::remove_pointer_t<decltype(type)>;
    auto second = std::make_unique<Options>(options);
    second->lr(options.lr() / 3).weight_decay(0.03);
    if (groups.size() > 1) groups[1].set_options(std::move(second));
    return std::make_unique<Optimizer>(groups, options);
  };
  return {std::move(name), [make](const Groups& groups) { return make(static_cast<Plain*>(nullptr), groups); },
          [make](const Groups& groups) { return make(static_cast<Fused*>(nullptr), groups); }};
}

const std::vector<Twins>& all_twins() {
  const auto adamw = [](const char* name, optim::AdamWOptions options) {
    return twins<optim::AdamW, holdfast::FusedAdamW>(name, options);
  };
  const auto adam = [](const char* name, optim::AdamOptions options) {
    return twins<optim::Adam, holdfast::FusedAdam>(name, options);
  };
  const auto sgd = [](const char* name, optim::SGDOptions options) {
    return twins<optim::SGD, holdfast::FusedSgd>(name, options);
  };
  static const std::vector<Twins> all = {
      adamw("AdamW", optim::AdamWOptions(0.02)),
      adamw("AdamW, all options", optim::AdamWOptions(0.02).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.2)),
      adamw("AdamW, amsgrad", optim::AdamWOptions(0.02).amsgrad(true).weight_decay(0)),
      adam("Adam", optim::AdamOptions(0.02)),
      adam("Adam, all options", optim::AdamOptions(0.02).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.2)),
      adam("Adam, amsgrad", optim::AdamOptions(0.02).amsgrad(true)),
      sgd("SGD", optim::SGDOptions(0.02)),
      sgd("SGD, weight decay", optim::SGDOptions(0.02).weight_decay(0.1)),
      sgd("SGD, momentum", optim::SGDOptions(0.02).momentum(0.9)),
      sgd("SGD, nesterov", optim::SGDOptions(0.02).momentum(0.8).nesterov(true).weight_decay(0.1)),
      sgd("SGD, dampening", optim::SGDOptions(0.02).momentum(0.9).dampening(0.3).weight_decay(0.1)),
  };
  return all;
}

const Twins& adamw() { return all_twins().front(); }

/// Parameters of many kinds in two groups, and the gradients of every step.
struct Program {
  Program(const MakeOptimizer& make, at::Device device, at::ScalarType dtype = at::kFloat, std::uint64_t seed = 0,
          bool tied = true) {
    torch::manual_seed(seed);
    const auto add = [&](at::Tensor x) { parameters.push_back(x.to(device).requires_grad_()); };
    add(torch::randn({37, 5}, dtype));
    add(torch::randn({6, 4, 3, 3}, dtype).contiguous(at::MemoryFormat::ChannelsLast));
    add(torch::randn({}, dtype));
    add(torch::randn({2, 3}, at::kDouble));
    add(torch::randn({1000}, dtype));
    add(torch::randn({64, 3}, dtype).t());  // dense, but not contiguous
    add(torch::randn({7}, dtype));
    std::vector<at::Tensor> first(parameters.begin(), parameters.begin() + 4);
    if (tied) first.push_back(parameters[2]);  // the group contains a tied parameter twice
    optimizer = make({first, std::vector<at::Tensor>(parameters.begin() + 4, parameters.end())});
    for (std::size_t i = 0; i < parameters.size(); ++i) state.track("p" + std::to_string(i), parameters[i]);
    state.track("optimizer", *optimizer);
  }

  TakesDeviceScale& scaled() { return dynamic_cast<TakesDeviceScale&>(*optimizer); }

  /// The gradients of step `number`, equal in all programs. One parameter sometimes has no gradient, one has none for a
  /// long time, and one gets a gradient in a memory order other than its own.
  void set_gradients(int number, double scale = 1) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& p = parameters[i];
      p.mutable_grad() = at::Tensor();
      if ((i == 1 && number % 3 == 1) || (i == 6 && number < 4)) continue;
      torch::manual_seed(static_cast<std::uint64_t>(number * 100) + i);
      auto gradient = (torch::randn(p.sizes(), at::kDouble) * scale).to(p.options());
      if (i != 5) gradient = at::empty_like(p).copy_(gradient).detach();
      p.mutable_grad() = gradient;
    }
  }

  void steps(int from, int to) {
    for (int i = from; i < to; ++i) {
      set_gradients(i);
      optimizer->step();
    }
  }

  /// Steps like mixed precision; `skips` are the steps whose gradients overflowed.
  void scaled_steps(int from, int to, const std::vector<int>& skips) {
    for (int i = from; i < to; ++i) {
      set_gradients(i);
      const bool skip = std::find(skips.begin(), skips.end(), i) != skips.end();
      if (skip) {
        for (auto& p : parameters) {
          if (p.grad().defined()) p.mutable_grad().fill_(std::numeric_limits<double>::infinity());
        }
      }
      scaled().step_scaled({}, torch::full({1}, skip ? 1.0 : 0.0, parameters[0].device()));
    }
  }

  std::vector<at::Tensor> parameters;
  std::unique_ptr<optim::Optimizer> optimizer;
  RunState state;
};

/// The largest difference in parameters and state, in units of `dtype`'s rounding: relative to |b|, or relative to 1 if
/// b is small.
double distance(const Program& a, const Program& b, at::ScalarType dtype) {
  const double epsilon = dtype == at::kDouble ? std::numeric_limits<double>::epsilon()
                                              : static_cast<double>(std::numeric_limits<float>::epsilon());
  double largest = 0;
  const auto compare = [&](const at::Tensor& x, const at::Tensor& y) {
    const auto magnitude = y.detach().to(at::kDouble).abs().clamp_min(1);
    const auto difference = (x.detach().to(at::kDouble) - y.detach().to(at::kDouble)).abs() / magnitude;
    largest = std::max(largest, difference.max().item<double>() / epsilon);
  };
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    compare(a.parameters[i], b.parameters[i]);
    const auto state_a = a.optimizer->state().find(a.parameters[i].unsafeGetTensorImpl());
    const auto state_b = b.optimizer->state().find(b.parameters[i].unsafeGetTensorImpl());
    REQUIRE((state_a == a.optimizer->state().end()) == (state_b == b.optimizer->state().end()));
    if (state_a == a.optimizer->state().end()) continue;
    const auto compare_adam = [&]<class State>(const State* x) {
      const auto& y = dynamic_cast<const State&>(*state_b->second);
      CHECK(x->step() == y.step());
      compare(x->exp_avg(), y.exp_avg());
      compare(x->exp_avg_sq(), y.exp_avg_sq());
      REQUIRE(x->max_exp_avg_sq().defined() == y.max_exp_avg_sq().defined());
      if (y.max_exp_avg_sq().defined()) compare(x->max_exp_avg_sq(), y.max_exp_avg_sq());
    };
    if (const auto* x = dynamic_cast<optim::AdamWParamState*>(state_a->second.get())) compare_adam(x);
    if (const auto* x = dynamic_cast<optim::AdamParamState*>(state_a->second.get())) compare_adam(x);
    if (const auto* x = dynamic_cast<optim::SGDParamState*>(state_a->second.get())) {
      compare(x->momentum_buffer(), dynamic_cast<optim::SGDParamState&>(*state_b->second).momentum_buffer());
    }
  }
  return largest;
}

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

TEST_CASE("fused_optimizers_compute_what_libtorchs_compute") { equals_libtorchs(at::kCPU); }

TEST_CASE("a_skipped_step_never_was") { skipped_steps_never_were(at::kCPU); }

TEST_CASE("the_scale_is_divided_out_of_gradients_and_steps") { scale_is_divided_out(at::kCPU); }

TEST_CASE("fused_optimizers_resume_to_the_bit_across_skipped_steps") { resume_is_bit_identical(at::kCPU); }

TEST_CASE("a_checkpoint_of_a_fused_optimizer_is_one_of_libtorchs_and_back") { loads_into_the_other(at::kCPU); }

TEST_CASE("state_of_another_memory_order_is_taken_over") {
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

TEST_CASE("a_fused_optimizer_can_be_written_with_torch_save") {
  // LibTorch's own torch::load() forgets the state of a tied parameter.
  const auto make = [](const MakeOptimizer& make) {
    return std::make_unique<Program>(make, at::kCPU, at::kFloat, 0, false);
  };
  const auto program = make(adamw().fused), plain = make(adamw().plain), fused = make(adamw().fused);
  program->scaled_steps(0, 6, {1, 4});
  std::stringstream file;
  torch::save(*program->optimizer, file);
  torch::load(*plain->optimizer, file);
  file.seekg(0);
  torch::load(*fused->optimizer, file);
  for (const auto* other : {&plain, &fused}) {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < program->parameters.size(); ++i) {
      (*other)->parameters[i].copy_(program->parameters[i]);
    }
  }
  CHECK(distance(*plain, *program, at::kFloat) == 0);
  program->steps(6, 9);
  fused->steps(6, 9);
  CHECK(other_parts(bytes_of(fused->state), bytes_of(program->state)) == kNone);
}

TEST_CASE("a_closure_is_called_with_gradients_and_its_loss_is_returned") {
  auto parameter = torch::ones({3}).requires_grad_();
  holdfast::FusedSgd optimizer(std::vector<at::Tensor>{parameter}, optim::SGDOptions(0.5));
  const auto loss = optimizer.step([&] {
    optimizer.zero_grad();
    auto loss = (2 * parameter).sum();
    loss.backward();
    return loss;
  });
  CHECK(loss.item<float>() == 6);
  CHECK(torch::equal(parameter.detach(), torch::zeros({3})));
}

TEST_CASE("options_are_checked_as_libtorch_checks_them") {
  const std::vector<at::Tensor> parameters = {torch::ones({3}).requires_grad_()};
  CHECK_THROWS_AS(holdfast::FusedAdamW(parameters, optim::AdamWOptions(-1)), c10::Error);
  CHECK_THROWS_AS(holdfast::FusedAdam(parameters, optim::AdamOptions(0.1).betas({1.5, 0.9})), c10::Error);
  CHECK_THROWS_AS(holdfast::FusedSgd(parameters, optim::SGDOptions(0.1).nesterov(true)), c10::Error);
}

TEST_CASE("what_no_fused_kernel_takes_is_refused_before_anything_changes") {
  for (const auto& [name, plain, fused] : all_twins()) {
    CAPTURE(name);
    auto dense = torch::ones({3}).requires_grad_(), other = torch::ones({3}).requires_grad_();
    const auto refused = [&](at::Tensor parameter, at::Tensor gradient) {
      const auto optimizer = fused({std::vector<at::Tensor>{dense}, std::vector<at::Tensor>{other, parameter}});
      dense.mutable_grad() = torch::ones({3});
      parameter.mutable_grad() = gradient;
      const auto message = error_of([&] { optimizer->step(); });
      CHECK(torch::equal(dense.detach(), torch::ones({3})));
      CHECK(optimizer->state().empty());
      return message;
    };

    torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(10, 4).sparse(true));
    embedding->forward(torch::tensor({1, 2})).sum().backward();
    CHECK_THAT(refused(embedding->weight, embedding->weight.grad().clone()),
               Catch::Matchers::StartsWith("Fused" + name.substr(0, 1)) &&
                   Catch::Matchers::Contains(", group 1: parameter 1 (F32 [10, 4]) has a sparse gradient"));
    const auto every_second = torch::ones({8}).slice(0, 0, 8, 2).detach().requires_grad_();
    CHECK_THAT(refused(every_second, torch::ones({4})), Catch::Matchers::Contains("memory without gaps"));
    CHECK_THAT(refused(torch::ones({2}, at::kComplexFloat).requires_grad_(), torch::ones({2}, at::kComplexFloat)),
               Catch::Matchers::Contains("is complex"));
    if (name.substr(0, 3) == "SGD") {
      CHECK_THAT(refused(torch::ones({64}, at::kBFloat16).requires_grad_(), torch::ones({64}, at::kBFloat16)),
                 Catch::Matchers::Contains("computes wrongly on the CPU"));
    }
  }
}

TEST_CASE("fused_optimizers_do_on_a_gpu_what_they_do_on_the_cpu", "[gpu]") {
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
