// CustomOrder: the order that a program gives by LoaderOptions::order, checked and kept for the current epoch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace holdfast {

class CustomOrder {
 public:
  struct Epoch {
    std::uint64_t number = 0;
    std::shared_ptr<const std::vector<std::size_t>> indices;  // null: no custom order
    std::string digest;
  };

  explicit CustomOrder(std::function<std::vector<std::size_t>(std::uint64_t epoch)> order) : order_(std::move(order)) {}

  bool is_given() const { return order_ != nullptr; }
  /// The order of an epoch, for which the program is asked once. Throws Error(invalid) unless it has `size` indices
  /// below `size`.
  const Epoch& of(std::uint64_t epoch, std::uint64_t size) const;

 private:
  std::function<std::vector<std::size_t>(std::uint64_t epoch)> order_;
  mutable Epoch last_;
};

}  // namespace holdfast
