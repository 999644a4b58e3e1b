#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "answers.h"
#include "holdfast/holdfast.h"
#include "loops.h"
#include "model.h"
#include "ranks/group_control.h"
#include "rounds.h"

namespace encoder_bench {

int run_holdfast(const Settings& s, int argc, char** argv) {
  using namespace holdfast;
  SessionOptions options;
  options.dir = s.folder;
  options.run = "bench";
  options.seed = kSeed;
  options.every = "never";
  options.device = s.cuda ? "cuda" : "cpu";
  options.fresh = true;
  auto session = Session::start(argc, argv, options);
  Transformer net(s.model);
  net->to(session.device());
  FusedAdamW optimizer(net->parameters(), torch::optim::AdamWOptions(kLearningRate));
  auto pipeline = session.pipeline(net, optimizer, {Ddp(s.ddp), Amp(Precision::bf16)});
  const Batch batch = make_batch(s, session.rank(), session.device());
  Rounds rounds(session.device(), [](const std::string& order) -> json { refuse("unknown order " + order); });
  if (s.mark_last_gradient) rounds.mark_last_gradient_of(net->tokens->weight);
  session.restore();
  at::Tensor first = at::ones({1}, at::TensorOptions(session.device()));
  session.group().all_reduce(first);  // NCCL connects here instead of in a round
  rounds.ready(*net);
  for (auto& step : session.steps({.count = 1'000'000'000})) {
    if (!rounds.another_step()) break;
    const at::Tensor loss = pipeline.forward(step, [&] { return loss_of(net, batch); });
    rounds.after_forward(loss);
    pipeline.backward(loss);
    rounds.after_backward();
    pipeline.update();
    rounds.after_update();
  }
  // No finish(): it would write gigabytes that are not needed.
  holdfast::detail::GroupControl(session.group()).close();
  std::_Exit(0);
}

}  // namespace encoder_bench
