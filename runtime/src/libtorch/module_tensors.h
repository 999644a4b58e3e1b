// A module's tensors by their names within it, as named_parameters() and named_buffers() give them, but without copies,
// because a module may have tens of thousands of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

namespace torch::nn {
class Module;
}

namespace holdfast {

using VisitTensor = std::function<void(const std::string& name, const at::Tensor& tensor)>;
void each_parameter(const torch::nn::Module& module, const VisitTensor& visit);
void each_buffer(const torch::nn::Module& module, const VisitTensor& visit);

/// Visits the module itself, as "", and every module in it, each before its children.
void each_module(const torch::nn::Module& module,
                 const std::function<void(const std::string& path, const torch::nn::Module& part)>& visit);

}  // namespace holdfast
