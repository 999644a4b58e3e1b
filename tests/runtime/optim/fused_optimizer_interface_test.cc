// The fused optimizers are called, written and checked as LibTorch's are, and refuse what their kernels cannot compute.
#include <torch/torch.h>

#include <memory>
#include <sstream>
#include <vector>

#include "holdfast/runtime/optim/fused_optimizers.h"
#include "message_parts.h"
#include "optim/optimizer_twins.h"
#include "tracked_run.h"

using namespace optimizer_twins;

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

TEST_CASE("tensors_that_no_fused_kernel_supports_are_refused_before_anything_changes") {
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
    const auto sparse = refused(embedding->weight, embedding->weight.grad().clone());
    CHECK_THAT(sparse, Catch::Matchers::StartsWith("Fused" + name.substr(0, 1)));
    CHECK(lacking(sparse, {"group 1", "parameter 1", "F32 [10, 4]", "sparse gradient"}) == "");
    const auto every_second = torch::ones({8}).slice(0, 0, 8, 2).detach().requires_grad_();
    CHECK_THAT(refused(every_second, torch::ones({4})), ContainsSubstring("memory without gaps"));
    CHECK_THAT(refused(torch::ones({2}, at::kComplexFloat).requires_grad_(), torch::ones({2}, at::kComplexFloat)),
               ContainsSubstring("is complex"));
    if (name.substr(0, 3) == "SGD") {
      CHECK_THAT(refused(torch::ones({64}, at::kBFloat16).requires_grad_(), torch::ones({64}, at::kBFloat16)),
                 ContainsSubstring("computes wrongly on the CPU"));
    }
  }
}
