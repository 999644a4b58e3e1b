#include "inspect/tensor_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "inspect/elements.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;

namespace {

constexpr std::uint64_t kPieceBytes = 1 << 20;  // a multiple of every element's size

/// A sum whose error does not grow with the number of terms. Source: A. Neumaier, "Rundungsfehleranalyse einiger
/// Verfahren zur Summation endlicher Summen", ZAMM 54 (1974), method IV.
class Sum {
 public:
  void add(double term) {
    const double sum = sum_ + term;
    lost_ += std::abs(sum_) >= std::abs(term) ? (sum_ - sum) + term : (term - sum) + sum_;
    sum_ = sum;
  }
  /// An infinite term makes `lost_` NaN; then the sum alone is correct.
  double value() const { return std::isfinite(sum_) ? sum_ + lost_ : sum_; }

 private:
  double sum_ = 0;
  double lost_ = 0;
};

template <class Value>
class Accumulator {
 public:
  void add(Value value) {
    if (is_nan(value)) {
      ++nan_;
      return;
    }
    if constexpr (std::is_same_v<Value, std::complex<double>>) {
      range(std::abs(value));
      real_.add(value.real());
      imaginary_.add(value.imag());
    } else {
      range(value);
      real_.add(static_cast<double>(value));
    }
    ++count_;
  }
  TensorStats finish() const {
    TensorStats stats;
    stats.elements = count_ + nan_;
    stats.nan = nan_;
    if (count_ == 0) return stats;
    stats.min = Number(min_);
    stats.max = Number(max_);
    const auto count = static_cast<double>(count_);
    if constexpr (std::is_same_v<Value, std::complex<double>>) {
      stats.mean = Number(std::complex<double>(real_.value() / count, imaginary_.value() / count));
    } else {
      stats.mean = Number(real_.value() / count);
    }
    return stats;
  }

 private:
  using Ordered = std::conditional_t<std::is_same_v<Value, std::complex<double>>, double, Value>;
  void range(Ordered value) {
    if (count_ == 0 || value < min_) min_ = value;
    if (count_ == 0 || value > max_) max_ = value;
  }
  std::uint64_t count_ = 0;
  std::uint64_t nan_ = 0;
  Ordered min_{};
  Ordered max_{};
  Sum real_, imaginary_;
};

}  // namespace

std::string format_number(const Number& number) {
  return std::visit(
      [](auto value) -> std::string {
        if constexpr (std::is_same_v<decltype(value), std::complex<double>>) {
          return fmt::format("{}{}{}i", format_number(value.real()), std::signbit(value.imag()) ? "" : "+",
                             format_number(value.imag()));
        } else if constexpr (std::is_same_v<decltype(value), double>) {
          return format_number(value);
        } else {
          return std::to_string(value);
        }
      },
      number);
}

nlohmann::ordered_json json_number(const Number& number) {
  return std::visit(
      [](auto value) -> nlohmann::ordered_json {
        if constexpr (std::is_same_v<decltype(value), std::complex<double>>) {
          return nlohmann::ordered_json::array({json_number(value.real()), json_number(value.imag())});
        } else if constexpr (std::is_same_v<decltype(value), double>) {
          return json_number(value);
        } else {
          return value;
        }
      },
      number);
}

Result<TensorStats> stats_of(const Checkpoint& checkpoint, const storage::TensorEntry& tensor,
                             const std::function<void(std::uint64_t)>& advance) {
  return with_element(tensor.dtype, [&](auto element) -> Result<TensorStats> {
    using Element = decltype(element);
    Accumulator<typename Element::Value> accumulator;
    const std::uint64_t total = tensor.bytes();
    const std::unique_ptr<std::byte[]> buffer(new std::byte[std::min(kPieceBytes, total)]);
    for (std::uint64_t done = 0; done < total;) {
      const std::span<std::byte> piece(buffer.get(), std::min(kPieceBytes, total - done));
      if (Status status = read_tensor(checkpoint, tensor, done, piece); !status) return status;
      for (std::size_t at = 0; at < piece.size(); at += Element::kBytes)
        accumulator.add(Element::load(piece.data() + at));
      done += piece.size();
      advance(piece.size());
    }
    return accumulator.finish();
  });
}

}  // namespace holdfast::tools
