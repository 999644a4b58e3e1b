// The C++ half of tests/python/pipeline_reference_test.py: trains the same small network under every plan of a list, in
// one session, and writes the results to the last bit.
//
//   pipeline_reference PLANS.json RESULTS.json [--holdfast.…]
//
// Weights and samples are integers divided by powers of two, so that the other half has exactly the same ones. A plan:
//
//   "precision": "fp32" | "bf16" | "fp16", "initial_scale", "growth_interval"
//   "optimizer": "SGD" | "AdamW" | "FusedAdamW", "rate", "warmup", "floor"
//   "size": samples, "batch": samples per micro-batch over all ranks, "accumulate": micro-batches of a window, "epochs"
//   "clip": the largest norm, 0 for none; "decay": of the average; "bucket_bytes": size of the gradient buckets
//
// Its result (null means not finite): "losses": one list for each rank; for each update "scales", "stepped", "rates"
// and "norms"; "weights" and "averages".
#include <torch/torch.h>

#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "holdfast/holdfast.h"

namespace {

using nlohmann::json;
namespace F = torch::nn::functional;

constexpr std::int64_t kInputs = 12, kHidden = 24, kClasses = 8;

struct NetImpl : torch::nn::Module {
  NetImpl() {
    const torch::NoGradGuard no_grad;
    std::int64_t number = 0;
    for (auto& parameter : parameters()) {
      const auto k = torch::arange(parameter.numel(), torch::kLong);
      parameter.copy_(((k * 37 + k * k * 3 + 101 * number++).remainder(257) - 128).view_as(parameter) / 512.0);
    }
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return last->forward(torch::tanh(middle->forward(torch::gelu(first->forward(x)))));
  }
  torch::nn::Linear first{register_module("first", torch::nn::Linear(kInputs, kHidden))};
  torch::nn::Linear middle{register_module("middle", torch::nn::Linear(kHidden, kHidden))};
  torch::nn::Linear last{register_module("last", torch::nn::Linear(kHidden, kClasses))};
};
TORCH_MODULE(Net);

class Samples : public torch::data::datasets::Dataset<Samples> {
 public:
  explicit Samples(std::size_t size) : size_(size) {}
  torch::data::Example<> get(std::size_t index) override {
    const auto i = static_cast<std::int64_t>(index);
    const auto j = torch::arange(kInputs, torch::kLong);
    return {((j * 17 + i * 29 + j * i * 5).remainder(61) - 30) / 32.0, torch::tensor(i * 5 % kClasses)};
  }
  std::optional<std::size_t> size() const override { return size_; }

 private:
  std::size_t size_;
};

auto samples(std::size_t size) { return Samples(size).map(torch::data::transforms::Stack<>()); }
using SamplesLoader = holdfast::Loader<decltype(samples(0))>;

// Measures the norm that clipping would see, for plans that do not clip.
class Norm : public holdfast::Stage {
 public:
  std::string name() const override { return "norm"; }
  Place place() const override { return Place::gradients; }
  void before_update(holdfast::Update& update) override {
    value = torch::linalg_vector_norm(torch::stack(at::_foreach_norm(update.gradients))).item<double>();
  }
  double value = 0;
};

json values_of(const std::vector<torch::Tensor>& tensors) {
  std::vector<float> values;
  for (const auto& tensor : tensors) {
    const auto flat = tensor.detach().cpu().contiguous();
    const float* const begin = flat.const_data_ptr<float>();
    values.insert(values.end(), begin, begin + flat.numel());
  }
  return values;  // as doubles, which hold them exactly
}

Net net_on(c10::Device device) {
  Net net;
  net->to(device);
  return net;
}

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const json& plan, const Net& net) {
  const std::string name = plan.at("optimizer");
  const double rate = plan.at("rate");
  if (name == "SGD") {
    return std::make_unique<torch::optim::SGD>(net->parameters(), torch::optim::SGDOptions(rate).momentum(0.9));
  }
  const auto options = torch::optim::AdamWOptions(rate).weight_decay(0.1);
  if (name == "FusedAdamW") return std::make_unique<holdfast::FusedAdamW>(net->parameters(), options);
  if (name == "AdamW") return std::make_unique<torch::optim::AdamW>(net->parameters(), options);
  throw std::invalid_argument("unknown optimizer: " + name);
}

std::uint64_t updates_of(const json& plan, const SamplesLoader& loader) {
  const std::uint64_t window = plan.at("accumulate");
  return plan.at("epochs").get<std::uint64_t>() * ((loader.batches_per_epoch() + window - 1) / window);
}

// What one plan trains; the session tracks it from its start.
class Training {
 public:
  Training(holdfast::Session& session, const json& plan, const std::string& name)
      : plan_(plan),
        net_(net_on(session.device())),
        optimizer_(make_optimizer(plan, net_)),
        loader_(samples(plan.at("size")), {.batch_size = plan.at("batch"), .shuffle = false}),
        pipeline_(session.pipeline(name, net_, *optimizer_, stages())) {
    session.track(name + ".loader", loader_);
  }

  json train(holdfast::Session& session) {
    std::vector<double> losses;
    json result;
    for (auto& batch : session.steps(loader_, {.epochs = plan_.at("epochs")})) {
      const auto outcome =
          pipeline_.step(batch, [&] { return F::cross_entropy(net_->forward(batch.data), batch.target); });
      losses.push_back(pipeline_.loss());
      if (!outcome.window_ended()) continue;
      result["scales"].push_back(pipeline_.stage<holdfast::Amp>().scale());
      result["stepped"].push_back(outcome.stepped());
      result["rates"].push_back(pipeline_.lr());
      result["norms"].push_back(norm_ ? norm_->value : pipeline_.stage<holdfast::ClipGradNorm>().norm().item<double>());
    }
    result["losses"] = session.all_gather(losses);
    result["updates"] = pipeline_.updates();
    result["skipped"] = pipeline_.skipped();
    result["weights"] = values_of(net_->parameters());
    const auto averages = pipeline_.stage<holdfast::Ema>().swap_in();
    result["averages"] = values_of(net_->parameters());
    return result;
  }

 private:
  std::vector<holdfast::AnyStage> stages() {
    using namespace holdfast;
    std::vector<AnyStage> stages{
        Ddp({.bucket_bytes = plan_.at("bucket_bytes"), .first_bucket_bytes = plan_.at("bucket_bytes")}),
        Amp(parse_precision(plan_.at("precision")),
            {.initial_scale = plan_.at("initial_scale"), .growth_interval = plan_.at("growth_interval")}),
        Accumulate(plan_.at("accumulate"))};
    if (const double largest = plan_.at("clip"); largest > 0) {
      stages.push_back(ClipGradNorm(largest));
    } else {
      norm_ = std::make_shared<Norm>();
      stages.push_back(norm_);
    }
    stages.push_back(LrSchedule::warmup_cosine(plan_.at("warmup"), updates_of(plan_, loader_), plan_.at("floor")));
    stages.push_back(Ema(plan_.at("decay")));
    return stages;
  }

  json plan_;
  Net net_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  SamplesLoader loader_;
  std::shared_ptr<Norm> norm_;
  holdfast::Pipeline pipeline_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    auto session = holdfast::Session::start(argc, argv);
    if (argc != 3) throw std::invalid_argument("usage: pipeline_reference PLANS.json RESULTS.json [--holdfast.…]");
    std::ifstream file(argv[1]);
    const json plans = json::parse(file);
    std::vector<std::unique_ptr<Training>> trainings;
    for (const json& plan : plans) {
      const std::string name = "plan" + std::to_string(trainings.size());
      trainings.push_back(std::make_unique<Training>(session, plan, name));
    }
    json results = json::array();
    for (const auto& training : trainings) results.push_back(training->train(session));
    if (session.is_main()) {
      std::ofstream out(argv[2]);
      out << json{{"libtorch", TORCH_VERSION}, {"ranks", session.world_size()}, {"plans", results}};
      if (!out.flush()) throw std::runtime_error("the results could not be written");
    }
    return session.finish();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
