#include "inspect/tensor_diff.h"

#include <algorithm>
#include <memory>

#include "inspect/elements.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;
using storage::TensorEntry;

namespace {

constexpr std::uint64_t kPieceElements = 1 << 17;

/// Exact even where a double cannot hold the integers themselves.
double distance(std::int64_t a, std::int64_t b) {
  const auto wide = [](std::int64_t value) { return static_cast<std::uint64_t>(value); };
  return static_cast<double>(a > b ? wide(a) - wide(b) : wide(b) - wide(a));
}
double distance(std::uint64_t a, std::uint64_t b) { return static_cast<double>(a > b ? a - b : b - a); }
double distance(std::complex<double> a, std::complex<double> b) { return a == b ? 0 : std::abs(a - b); }
double distance(double a, double b) { return a == b ? 0 : std::abs(a - b); }

/// For two dtypes without a common exact type.
std::vector<std::complex<double>> values_of(storage::Dtype dtype, const std::byte* from, std::uint64_t count) {
  std::vector<std::complex<double>> values(count);
  with_element(dtype, [&](auto element) {
    using Element = decltype(element);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto value = Element::load(from + i * Element::kBytes);
      if constexpr (std::is_same_v<typename Element::Value, std::complex<double>>) {
        values[i] = value;
      } else {
        values[i] = static_cast<double>(value);
      }
    }
  });
  return values;
}

template <class Value>
void add(TensorDiff& diff, std::uint64_t at, Value a, Value b) {
  ++diff.differing;
  if (is_nan(a) != is_nan(b)) {
    ++diff.nan_on_one_side;
  } else if (!is_nan(a)) {
    const double apart = distance(a, b);
    if (apart > diff.max_abs) {
      diff.max_abs = apart;
      diff.max_at = at;
    }
  }
}

}  // namespace

Result<TensorDiff> compare(const Checkpoint& a, const TensorEntry& a_tensor, const Checkpoint& b,
                           const TensorEntry& b_tensor, const std::function<void(std::uint64_t)>& advance) {
  const std::uint64_t a_size = storage::element_size(a_tensor.dtype);
  const std::uint64_t b_size = storage::element_size(b_tensor.dtype);
  TensorDiff diff;
  diff.elements = a_tensor.bytes() / a_size;
  const std::uint64_t room = std::min(kPieceElements, diff.elements);
  const std::unique_ptr<std::byte[]> a_buffer(new std::byte[room * a_size]);
  const std::unique_ptr<std::byte[]> b_buffer(new std::byte[room * b_size]);
  for (std::uint64_t done = 0; done < diff.elements;) {
    const std::uint64_t count = std::min(kPieceElements, diff.elements - done);
    if (Status status = read_tensor(a, a_tensor, done * a_size, {a_buffer.get(), count * a_size}); !status)
      return status;
    if (Status status = read_tensor(b, b_tensor, done * b_size, {b_buffer.get(), count * b_size}); !status)
      return status;
    const std::byte* from_a = a_buffer.get();
    const std::byte* from_b = b_buffer.get();
    if (a_tensor.dtype == b_tensor.dtype) {
      if (std::memcmp(from_a, from_b, count * a_size) != 0) {
        with_element(a_tensor.dtype, [&](auto element) {
          using Element = decltype(element);
          for (std::uint64_t i = 0; i < count; ++i) {
            const std::byte* x = from_a + i * Element::kBytes;
            const std::byte* y = from_b + i * Element::kBytes;
            if (std::memcmp(x, y, Element::kBytes) != 0) add(diff, done + i, Element::load(x), Element::load(y));
          }
        });
      }
    } else {
      const auto a_values = values_of(a_tensor.dtype, from_a, count);
      const auto b_values = values_of(b_tensor.dtype, from_b, count);
      for (std::uint64_t i = 0; i < count; ++i) {
        if (a_values[i] != b_values[i] && !(is_nan(a_values[i]) && is_nan(b_values[i]))) {
          add(diff, done + i, a_values[i], b_values[i]);
        }
      }
    }
    done += count;
    advance(count * a_size);
  }
  return diff;
}

}  // namespace holdfast::tools
