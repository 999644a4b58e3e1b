// The stages ClipGradNorm and ClipGradValue.
#include <torch/torch.h>

#include <limits>
#include <memory>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "pipeline/small_net.h"

using namespace holdfast;
using namespace small_net;

TEST_CASE("clipping_bounds_norms_and_values") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  for (const double p : {1.0, 2.0, std::numeric_limits<double>::infinity()}) {
    auto before = std::make_shared<Recorder>(), after = std::make_shared<Recorder>();
    class Named : public Recorder {
      std::string name() const override { return "after"; }
    };
    auto named = std::make_shared<Named>();
    Pipeline pipeline(context_of(group, net, optimizer), {before, ClipGradNorm(0.01, p), named});
    pipeline.step(StepInfo(StepFacts()), [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); });
    CHECK(named->gradients[0].norm(p).item<double>() == Approx(0.01).epsilon(1e-4));
    CHECK(pipeline.stage<ClipGradNorm>().norm().item<double>() ==
          Approx(before->gradients[0].norm(p).item<double>()).epsilon(1e-5));
  }
  auto after = std::make_shared<Recorder>();
  Pipeline pipeline(context_of(group, net, optimizer), {ClipGradValue(1e-3), after});
  pipeline.step(StepInfo(StepFacts()), [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); });
  CHECK(after->gradients[0].abs().max().item<double>() == Approx(1e-3));
}
