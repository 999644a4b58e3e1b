#include "data/sample_order.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "catch.h"

using holdfast::SampleOrder;

namespace {

std::vector<std::uint64_t> order_of(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch) {
  SampleOrder order(size, seed, epoch, true);
  std::vector<std::uint64_t> samples;
  for (std::uint64_t i = 0; i < size; ++i) samples.push_back(order[i]);
  return samples;
}

}  // namespace

TEST_CASE("sample_order_never_changes") {
  CHECK(order_of(10, 42, 0) == std::vector<std::uint64_t>{2, 1, 9, 4, 6, 7, 8, 5, 3, 0});
  CHECK(order_of(10, 42, 1) == std::vector<std::uint64_t>{4, 0, 7, 9, 1, 3, 8, 6, 5, 2});
  SampleOrder images(60000, 42, 3, true);
  CHECK(std::vector{images[0], images[1], images[29999], images[59999]} ==
        std::vector<std::uint64_t>{48503, 18302, 36382, 32197});
  SampleOrder huge(std::uint64_t{3} << 40, 7, 0, true);
  CHECK(std::vector{huge[0], huge[1]} == std::vector<std::uint64_t>{1813149703582, 3019667883479});
}

TEST_CASE("sample_order_visits_every_sample_once") {
  for (std::uint64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1000, 4097, 60000}) {
    auto samples = order_of(size, 5, size);
    std::sort(samples.begin(), samples.end());
    std::vector<std::uint64_t> all(size);
    std::iota(all.begin(), all.end(), 0);
    CHECK(samples == all);
  }
}

TEST_CASE("sample_orders_are_as_even_as_shuffles") {
  // Every permutation of four and five samples, and every pair of first samples out of twelve, must be about equally
  // frequent: chi-square within five standard deviations of its mean, with consecutive seeds and epochs.
  const auto deviations = [](const auto& counts, double cells, double draws) {
    const double expected = draws / cells;
    double chi = (cells - static_cast<double>(counts.size())) * expected;
    for (const auto& [cell, count] : counts) chi += (count - expected) * (count - expected) / expected;
    return (chi - (cells - 1)) / std::sqrt(2 * (cells - 1));
  };
  for (auto [size, permutations] : {std::pair{4, 24}, {5, 120}}) {
    std::map<std::vector<std::uint64_t>, double> by_seed, by_epoch;
    for (int i = 0; i < 60000; ++i) {
      ++by_seed[order_of(size, i, 0)];
      ++by_epoch[order_of(size, 0, i)];
    }
    CHECK(std::abs(deviations(by_seed, permutations, 60000)) < 5);
    CHECK(std::abs(deviations(by_epoch, permutations, 60000)) < 5);
  }
  std::map<std::pair<std::uint64_t, std::uint64_t>, double> pairs;
  for (int i = 0; i < 60000; ++i) {
    SampleOrder order(12, 1, i, true);
    ++pairs[{order[0], order[1]}];
  }
  CHECK(std::abs(deviations(pairs, 12 * 11, 60000)) < 5);
}
