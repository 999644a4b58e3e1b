// A trace of what a training program computed, for comparison with one that was killed and resumed, and the samples and
// the step that such programs share.
#pragma once

#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "holdfast/holdfast.h"

namespace shapes {

using holdfast::Session;

/// What a program computed at one place in it. Written in one piece because it is shorter than PIPE_BUF.
struct Word {
  char place[40] = {};
  double value = 0;
};

class Trace {
 public:
  Trace(int pipe, int dies_at) : pipe_(pipe), dies_at_(dies_at) {}
  void tell(const std::string& place, double value) {
    if (++told_ == dies_at_) ::kill(::getpid(), SIGKILL);
    Word word;
    std::strncpy(word.place, place.c_str(), sizeof word.place - 1);
    word.value = value;
    if (::write(pipe_, &word, sizeof word) != sizeof word) std::abort();
  }
  /// Differs from one start to the next, for programs that are edited in between.
  bool is_edited() const { return dies_at_ % 2 == 1; }

 private:
  int pipe_;
  int dies_at_;  // 0: nowhere
  int told_ = 0;
};

class Samples : public torch::data::datasets::Dataset<Samples> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({2}, 0.1 * static_cast<double>(index)), torch::tensor(static_cast<double>(index % 3))};
  }
  std::optional<std::size_t> size() const override { return 10; }
};

inline auto samples(std::int64_t batch_size) {
  return holdfast::Loader(Samples().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
}

inline std::string at(const char* name, std::uint64_t a, std::uint64_t b = 0) {
  return name + std::to_string(a) + "." + std::to_string(b);
}

/// One step of SGD with dropout on `net`; returns the loss.
inline double train_on(torch::nn::Linear& net, torch::optim::Optimizer& optimizer, const torch::Tensor& data) {
  optimizer.zero_grad();
  const auto loss = (net->forward(torch::dropout(data, 0.5, true)) - 1).square().mean();
  loss.backward();
  optimizer.step();
  return loss.item<double>();
}

}  // namespace shapes
