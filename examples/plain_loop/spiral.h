// Two noisy spirals in the plane, one for each class: a dataset that needs no files.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstddef>
#include <optional>

class Spiral : public torch::data::datasets::Dataset<Spiral> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    const auto label = static_cast<std::int64_t>(index % 2);
    const double radius = static_cast<double>(index + 1) / static_cast<double>(kSamples);
    const double angle =
        6.0 * radius + (label == 1 ? M_PI : 0.0) + 0.05 * std::sin(static_cast<double>(index) * 12.9898);
    return {torch::tensor({radius * std::cos(angle), radius * std::sin(angle)}, torch::kFloat),
            torch::tensor(label, torch::kLong)};
  }
  std::optional<std::size_t> size() const override { return kSamples; }

 private:
  static constexpr std::size_t kSamples = 4096;
};
