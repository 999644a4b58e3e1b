// Values reach every rank bit-exactly: broadcast, reduced, gathered and split.
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "all_say.h"
#include "catch.h"
#include "holdfast/runtime/ranks/group.h"

namespace {

using namespace holdfast;
using nlohmann::json;
using ranks::all_say;

}  // namespace

TEST_CASE("values_reach_every_rank_bit_exactly") {
  for (const int count : {1, 2, 4}) {
    all_say(count, "right", [count](Group& group) -> std::string {
      const double tiny = 0.1 + 0.2;
      std::vector<double> mine{static_cast<double>(group.rank()) + tiny, std::numeric_limits<double>::denorm_min()};
      const auto all = group.all_gather(mine);
      for (int rank = 0; rank < count; ++rank) {
        if (all[static_cast<std::size_t>(rank)][0] != rank + tiny) return "all_gather";
        if (all[static_cast<std::size_t>(rank)][1] != std::numeric_limits<double>::denorm_min()) return "denormal";
      }
      if (!std::isnan(group.broadcast(std::nan(""), count - 1))) return "NaN";
      if (group.broadcast(std::string("from ") + std::to_string(group.rank()), count - 1) !=
          "from " + std::to_string(count - 1)) {
        return "broadcast";
      }
      // Longer than a fingerprint, and with another length on each rank.
      const std::string longer(20000 * static_cast<std::size_t>(group.rank() + 1),
                               static_cast<char>('a' + group.rank()));
      const auto gathered = group.gather(longer, count - 1);
      if (group.rank() != count - 1) return gathered.empty() ? "right" : "gather elsewhere";
      for (std::size_t rank = 0; rank < gathered.size(); ++rank) {
        if (gathered[rank] != std::string(20000 * (rank + 1), static_cast<char>('a' + static_cast<int>(rank)))) {
          return "a long value";
        }
      }
      return "right";
    });
  }
}

static_assert(holdfast::detail::JsonValue<std::string> && holdfast::detail::JsonValue<json> &&
              holdfast::detail::JsonValue<std::vector<double>>);
static_assert(!holdfast::detail::JsonValue<std::string_view>, "it would look into a value that is gone");

TEST_CASE("numbers_are_reduced_identically_on_every_rank") {
  all_say(4, "10 2.5 1 4 0.7000000000000001", [](Group& group) {
    const int mine = group.rank() + 1;
    const double parts[] = {0.1, 0.3, 0.2, 0.1};
    // NaN is detected, whichever rank has it.
    for (const int where : {0, 2}) {
      const double number = group.rank() == where ? std::nan("") : 1;
      if (!std::isnan(group.all_reduce(number, Reduce::max)) || !std::isnan(group.all_reduce(number, Reduce::min))) {
        return std::string("a NaN was lost");
      }
    }
    return fmt::format("{} {} {} {} {}", group.all_reduce(mine), group.all_reduce(double(mine), Reduce::mean),
                       group.all_reduce(mine, Reduce::min), group.all_reduce(mine, Reduce::max),
                       group.all_reduce(parts[group.rank()]));
  });
}

TEST_CASE("a_long_value_of_one_rank_takes_little_more_memory_than_itself") {
  constexpr std::size_t kSize = std::size_t{48} << 20;
  const auto peak = [] {
    std::ifstream lines("/proc/self/status");
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("VmHWM:")) return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
    }
    return 0ULL;
  };
  all_say(4, "right", [&](Group& group) -> std::string {
    const auto before = peak();
    const auto text = group.broadcast(group.rank() == 2 ? std::string(kSize, 'x') : std::string(), 2);
    if (text != std::string(kSize, 'x')) return "wrong";
    const auto grown = peak() - before;
    return grown < 7 * kSize ? "right" : fmt::format("{} MiB", grown >> 20);
  });
}

TEST_CASE("split_values_are_gathered_in_order") {
  all_say(3, "right", [](Group& group) -> std::string {
    for (const int size : {0, 1, 2, 3, 10, 11}) {
      std::vector<int> all;
      for (int i = 0; i < size; ++i) all.push_back(i);
      auto mine = group.split(all);
      for (int& one : mine) one *= 2;
      const auto together = group.gather_in_order(mine);
      for (int& one : all) one *= 2;
      if (together != all) return "size " + std::to_string(size);
    }
    return "right";
  });
}
