// Programs with one session on several ranks, for ranks::run_sessions().
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/holdfast.h"
#include "holdfast/storage/stores/file/file_store.h"

namespace rank_session {

// 23 samples, so that no batch size divides their number; a sample's number is in its data.
class Numbers : public torch::data::datasets::Dataset<Numbers> {
 public:
  explicit Numbers(std::size_t count = 23) : count_(count) {}
  torch::data::Example<> get(std::size_t index) override {
    const double x = static_cast<double>(index);
    return {torch::tensor({x / 10, std::sin(x)}, torch::kDouble), torch::tensor({std::cos(x)}, torch::kDouble)};
  }
  std::optional<std::size_t> size() const override { return count_; }

 private:
  std::size_t count_;
};

inline auto stacked(std::size_t count = 23) { return Numbers(count).map(torch::data::transforms::Stack<>()); }

inline holdfast::Session start(const holdfast::storage::Path& folder, std::string run, std::string every = "never",
                               std::string device = "cpu") {
  std::string program = "test", dir = "--holdfast.dir=" + folder.string();
  char* arguments[] = {program.data(), dir.data(), nullptr};
  char** argv = arguments;
  int argc = 2;
  return holdfast::Session::start(
      argc, argv, {.run = std::move(run), .seed = 5, .every = std::move(every), .device = std::move(device)});
}

inline std::vector<double> values_of(const torch::Tensor& tensor) {
  const auto flat = tensor.detach().to(c10::kCPU, torch::kDouble).contiguous().view({-1});
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

// Three epochs of a linear model with momentum; prints the weights.
inline int train_line(const holdfast::storage::Path& folder, const std::string& run, const char* device) {
  auto session = start(folder, run, "never", device);
  torch::nn::Linear net(2, 1);
  net->to(session.device(), torch::kDouble);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  holdfast::Loader loader(stacked(), {.batch_size = 8});
  session.track("net", net).track("optimizer", optimizer);
  for (auto& batch : session.steps(loader, {.epochs = 3})) {
    optimizer.zero_grad();
    torch::nn::functional::mse_loss(net->forward(batch.data), batch.target).backward();
    session.average_gradients(net);
    optimizer.step();
  }
  std::printf("%.17g %.17g %.17g\n", values_of(net->weight)[0], values_of(net->weight)[1], values_of(net->bias)[0]);
  return session.finish();
}

}  // namespace rank_session
