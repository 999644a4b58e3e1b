#pragma once

#include <torch/torch.h>

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(torch::Tensor x) { return out->forward(dropout->forward(torch::tanh(in->forward(x)))); }
  torch::nn::Linear in{register_module("in", torch::nn::Linear(2, 64))};
  torch::nn::Dropout dropout{register_module("dropout", torch::nn::Dropout(0.1))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(64, 2))};
};
TORCH_MODULE(Net);
