// Texts as numbers, one for each byte value that occurs in them, and windows of them for training.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// Seven sonnets of Shakespeare (1609).
extern const char* const kSonnets;

/// Throws std::runtime_error with the name of the file.
std::string read_text(const std::string& path);

class Vocabulary {
 public:
  explicit Vocabulary(const std::string& text);
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  /// Throws std::runtime_error for a byte that did not occur.
  torch::Tensor numbers(const std::string& text) const;
  std::string text(const torch::Tensor& numbers) const;

 private:
  std::string bytes_;                      // by number, ascending
  std::vector<std::int64_t> number_of_{};  // by byte; -1: does not occur
};

/// Each sample is `length` numbers, and as target the numbers that follow each of them.
class Windows : public torch::data::datasets::Dataset<Windows> {
 public:
  /// `count` windows from random places, which differ in each epoch.
  static Windows at_random(torch::Tensor numbers, std::int64_t length, std::size_t count);
  /// Consecutive windows, each once.
  static Windows in_order(torch::Tensor numbers, std::int64_t length);
  /// Windows of random numbers below `vocabulary`: for measurements, with nothing to learn.
  static Windows synthetic(std::int64_t vocabulary, std::int64_t length, std::size_t count);

  torch::data::Example<> get(std::size_t index) override;
  std::optional<std::size_t> size() const override { return count_; }

 private:
  Windows(torch::Tensor numbers, std::int64_t length, std::size_t count, bool random, std::int64_t vocabulary);
  torch::Tensor numbers_;  // undefined: synthetic
  std::int64_t length_;
  std::size_t count_;
  bool random_;
  std::int64_t vocabulary_;
};
