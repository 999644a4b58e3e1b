// Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 images of 28 × 28 grey pixels in ten classes, from the gzip'd
// IDX files that Debian's package dataset-fashion-mnist installs.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <optional>
#include <string>

class FashionMnist : public torch::data::datasets::Dataset<FashionMnist> {
 public:
  /// `split`: "train" (60,000 images) or "test" (10,000). Throws std::runtime_error with the name of the file.
  FashionMnist(const std::string& folder, const std::string& split);

  /// The image as 1 × 28 × 28 floats with mean 0 and deviation 1 over the training set, and its class. With
  /// augmentation, the image is mirrored with probability one half.
  torch::data::Example<> get(std::size_t index) override;
  std::optional<std::size_t> size() const override { return static_cast<std::size_t>(images_.size(0)); }

  FashionMnist& augment() {
    augment_ = true;
    return *this;
  }

 private:
  torch::Tensor images_;  // uint8, N × 28 × 28
  torch::Tensor labels_;  // int64, N
  bool augment_ = false;
};
