// A small training program with many features that could break a bit-exact resume: dropout, BatchNorm, tied weights,
// random augmentation, every optimizer, loader workers. It saves after each step, writes what it computed to a pipe,
// and kills itself at a given point.
#pragma once

#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/store_files.h"
#include "holdfast/holdfast.h"
#include "holdfast/storage/formats/digest.h"
#include "storage/observed_steps.h"

namespace chain {

struct Program {
  std::string dir;
  std::string run;
  std::string optimizer = "AdamW";
  int workers = 0;
  std::uint64_t steps = 20;
  std::string every = "1";
  // Where this process ends by SIGKILL: nowhere, "before" the save of its first step (after the optimizer step),
  // "after" it (in the next step), or at a step of the save protocol, such as "S5".
  std::string kill;
  int kill_rank = -1;  // with several ranks; -1: all of them
  int trace = -1;      // a pipe: one Record a step
  // Trains by a pipeline with every stage, in windows of three batches; empty: by a plain loop.
  std::string precision;
  std::string device = "cpu";
};

/// What a step computed. Written in one piece because it is shorter than PIPE_BUF.
struct Record {
  std::uint64_t step = 0;
  int rank = 0;
  std::uint64_t loss_bits = 0;
  holdfast::storage::Digest batch;  // of the samples' bytes, in order
  friend bool operator==(const Record&, const Record&) = default;
};

/// 61 samples of 6 numbers; 61 is prime, so no batch size divides it. The augmentation is random per (epoch, sample).
class Samples : public torch::data::datasets::Dataset<Samples> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    auto generator = holdfast::sample_generator(index);
    const auto base = torch::arange(6, torch::kFloat).mul(0.1 * static_cast<double>(index % 7)).sin();
    const auto noise = torch::randn({6}, generator) * 0.1;
    return {base + noise, torch::tensor(static_cast<std::int64_t>(index % 3))};
  }
  std::optional<std::size_t> size() const override { return 61; }
};

struct Mixing : torch::nn::Module {
  explicit Mixing(torch::Tensor values) : weight(register_parameter("weight", std::move(values))) {}
  torch::Tensor forward(const torch::Tensor& x) { return x.matmul(weight); }
  torch::Tensor weight;
};

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(torch::Tensor x) {
    x = dropout->forward(torch::relu(norm->forward(encoder->forward(x))));
    return out->forward(torch::tanh(decoder->forward(x)));
  }
  std::shared_ptr<Mixing> encoder{register_module("encoder", std::make_shared<Mixing>(torch::randn({6, 6}) * 0.3))};
  // Tied: one tensor under two names.
  std::shared_ptr<Mixing> decoder{register_module("decoder", std::make_shared<Mixing>(encoder->weight))};
  // Not in the order of use, so the order of the gradients differs from the order in the buckets.
  torch::nn::Linear out{register_module("out", torch::nn::Linear(6, 3))};
  torch::nn::Dropout dropout{register_module("dropout", torch::nn::Dropout(0.3))};
  torch::nn::BatchNorm1d norm{register_module("norm", torch::nn::BatchNorm1d(6))};
};
TORCH_MODULE(Net);

inline std::vector<torch::Tensor> distinct_parameters(Net& net) {
  std::vector<torch::Tensor> distinct;
  for (const auto& parameter : net->parameters()) {
    bool seen = false;
    for (const auto& other : distinct) seen = seen || other.is_same(parameter);
    if (!seen) distinct.push_back(parameter);
  }
  return distinct;
}

inline std::unique_ptr<torch::optim::Optimizer> make_optimizer(const std::string& name,
                                                               const std::vector<torch::Tensor>& parameters) {
  using namespace torch::optim;
  if (name == "Adam") return std::make_unique<Adam>(parameters, AdamOptions(1e-2).amsgrad(true));
  if (name == "AdamW") return std::make_unique<AdamW>(parameters, AdamWOptions(1e-2));
  if (name == "SGD") return std::make_unique<SGD>(parameters, SGDOptions(1e-2).momentum(0.9).nesterov(true));
  if (name == "RMSprop")
    return std::make_unique<RMSprop>(parameters, RMSpropOptions(1e-3).momentum(0.5).centered(true));
  if (name == "Adagrad") return std::make_unique<Adagrad>(parameters, AdagradOptions(1e-2));
  if (name == "LBFGS") return std::make_unique<LBFGS>(parameters, LBFGSOptions(0.1).max_iter(3).history_size(4));
  throw std::invalid_argument("unknown optimizer " + name);
}

/// Kills this process when the save protocol reaches a step.
class KillAt final : public ObservedSteps {
 public:
  explicit KillAt(std::string step) : step_(std::move(step)) {}
  void reached(std::string_view label) override {
    if (!step_.empty() && label.starts_with(step_)) ::kill(::getpid(), SIGKILL);
  }

 private:
  std::string step_;
};

/// Writes what a step computed to the trace.
inline void tell(const Program& program, const holdfast::Session& session, std::uint64_t step, double loss,
                 std::initializer_list<torch::Tensor> batch) {
  if (program.trace < 0) return;
  holdfast::storage::DigestStream seen;
  for (const auto& tensor : batch) {
    const auto bytes = tensor.contiguous();
    seen.update({static_cast<const std::byte*>(bytes.data_ptr()), bytes.nbytes()});
  }
  Record record{step, session.rank(), 0, seen.finish()};
  std::memcpy(&record.loss_bits, &loss, sizeof loss);
  if (::write(program.trace, &record, sizeof record) != sizeof record) std::abort();
}

/// The loop of a program with a pipeline.
inline int train_by_pipeline(const Program& program, holdfast::Session& session) {
  Net net;
  net->to(session.device());
  holdfast::FusedAdamW optimizer(distinct_parameters(net), torch::optim::AdamWOptions(1e-2));
  // BatchNorm rejects a batch of one. With 5 samples left and more than 2 ranks, one of them would get such a batch.
  const std::int64_t batch_size = session.world_size() <= 2 ? 8 : session.world_size() == 3 ? 9 : 16;
  holdfast::Loader loader(Samples().map(torch::data::transforms::Stack<>()),
                          {.batch_size = batch_size, .workers = program.workers});
  auto pipeline = session.pipeline(
      net, optimizer,
      {holdfast::Ddp({.bucket_bytes = 256, .first_bucket_bytes = 64}),
       holdfast::Amp(holdfast::parse_precision(program.precision), {.growth_interval = 2}), holdfast::Accumulate(3),
       holdfast::ClipGradNorm(0.5), holdfast::LrSchedule::warmup_cosine(4, 40), holdfast::Ema(0.9)});
  std::uint64_t here = 0;
  const bool dies = program.kill_rank < 0 || program.kill_rank == session.rank();
  for (auto& batch : session.steps(loader, {.epochs = (program.steps + 7) / 8})) {
    if (++here == 2 && program.kill == "after" && dies) ::kill(::getpid(), SIGKILL);
    const auto data = batch.data.to(session.device()), target = batch.target.to(session.device());
    const auto loss =
        pipeline.forward(batch, [&] { return torch::nn::functional::cross_entropy(net->forward(data), target); });
    if (here == 1 && program.kill == "inside" && dies) ::kill(::getpid(), SIGKILL);
    pipeline.backward(loss);
    pipeline.update();
    tell(program, session, batch.number(), pipeline.loss(), {batch.data, batch.target});
    if (program.kill == "before" && dies) ::kill(::getpid(), SIGKILL);
  }
  return session.finish();
}

/// Trains; returns the session's exit code if the process survives.
inline int train(const Program& program) {
  std::string dir = "--holdfast.dir=" + program.dir;
  std::string name = "chain";
  char* arguments[] = {name.data(), dir.data(), nullptr};
  char** argv = arguments;
  int argc = 2;
  // With several ranks only rank 0 saves.
  KillAt steps(program.kill.starts_with("S") && program.kill_rank <= 0 ? program.kill : "");
  holdfast::set_store_steps(&steps);

  auto session = holdfast::Session::start(argc, argv,
                                          {.run = program.run,
                                           .seed = 7,
                                           .every = program.every,
                                           .keep = 2,
                                           .device = program.device,
                                           .deterministic = program.device != "cpu",
                                           .threads = 1});
  if (!program.precision.empty()) return train_by_pipeline(program, session);
  Net net;
  const auto optimizer = make_optimizer(program.optimizer, distinct_parameters(net));
  torch::optim::StepLR scheduler(*optimizer, 5, 0.9);
  holdfast::Loader loader(Samples().map(torch::data::transforms::Stack<>()),
                          {.batch_size = 8, .workers = program.workers});
  double average = 0;
  std::mt19937 own(static_cast<unsigned>(1000 + session.rank()));  // each rank's own stream
  session.track("net", net).track("optimizer", *optimizer).track("scheduler", scheduler).track("average", average);
  session.track("own", own);

  std::uint64_t here = 0;
  for (auto& batch : session.steps(loader, {.epochs = (program.steps + 7) / 8})) {
    const bool dies = program.kill_rank < 0 || program.kill_rank == session.rank();
    if (++here == 2 && program.kill == "after" && dies) ::kill(::getpid(), SIGKILL);
    const auto loss_of = [&] {
      optimizer->zero_grad();
      const auto loss = torch::nn::functional::cross_entropy(net->forward(batch.data), batch.target);
      loss.backward();
      session.average_gradients(net);
      return loss;
    };
    const double loss = optimizer->step(loss_of).item<double>();
    scheduler.step();
    average = 0.9 * average + 0.1 * loss + 1e-9 * static_cast<double>(own() % 1000);

    tell(program, session, batch.number(), loss, {batch.data, batch.target});
    if (program.kill == "before" && dies) ::kill(::getpid(), SIGKILL);
  }
  return session.finish();
}

}  // namespace chain
