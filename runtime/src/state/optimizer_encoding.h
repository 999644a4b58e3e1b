// The options of an optimizer's group and the state of one of its parameters, as JSON and tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "libtorch/optimizer_fields.h"
#include "snapshot/capture.h"
#include "snapshot/restore_plan.h"

namespace holdfast {

nlohmann::json encode_options(const OptimizerFields& fields, torch::optim::OptimizerOptions& options);
/// Sets the options that `encoded` has. Throws a JSON exception for a value of another type.
void decode_options(const OptimizerFields& fields, const nlohmann::json& encoded,
                    torch::optim::OptimizerOptions& options);

/// Adds the state's tensors under `prefix` and a field's name. Returns the other fields.
nlohmann::json capture_parameter_state(Capture& capture, const OptimizerFields& fields, const std::string& prefix,
                                       torch::optim::OptimizerParamState& state);
/// A new state with the fields that capture_parameter_state() returned; the steps of the plan assign its tensors.
std::unique_ptr<torch::optim::OptimizerParamState> plan_parameter_state(RestorePlan& plan,
                                                                        const OptimizerFields& fields,
                                                                        const std::string& prefix,
                                                                        const nlohmann::json& encoded,
                                                                        c10::Device device);
/// LibTorch creates a parameter's state once, as the options then require. If options that were edited later require
/// more tensors, adds these as they would have begun: zeros.
void complete_parameter_state(const OptimizerFields& fields, const nlohmann::json& options, const at::Tensor& parameter,
                              torch::optim::OptimizerParamState& state);

}  // namespace holdfast
