// The common beginning of the programs in this folder. The test compiles it once for all of them (and compilers warn
// about #pragma once in such a file). It includes the parts of LibTorch that the programs use: with torch/torch.h, each
// of them takes twice as long to compile.
#ifndef HOLDFAST_TESTS_COMPILE_PROGRAM_H
#define HOLDFAST_TESTS_COMPILE_PROGRAM_H

#include <torch/data.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "holdfast/holdfast.h"

struct Samples : torch::data::Dataset<Samples> {
  torch::data::Example<> get(std::size_t) override { return {torch::ones({2}), torch::ones({1})}; }
  std::optional<std::size_t> size() const override { return 10; }
};

#endif
