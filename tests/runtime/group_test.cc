#include "holdfast/runtime/group.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <map>

#include "ranks.h"

namespace {

using namespace holdfast;
using nlohmann::json;

// Every rank's `body` is fine and says the same.
void all_say(int count, const std::string& expected, const std::function<std::string(Group&)>& body,
             c10::DeviceType device = c10::kCPU) {
  const auto ended = ranks::run(count, body, std::chrono::seconds(60), device);
  for (std::size_t rank = 0; rank < ended.size(); ++rank) {
    INFO("rank " << rank << " of " << count);
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text == expected);
  }
}

// What every rank says: which operation gave a wrong tensor.
std::string try_tensors(Group& group) {
  const int rank = group.rank(), count = group.world_size();
  const auto full = [&](at::IntArrayRef shape, int value, c10::ScalarType dtype) {
    return torch::full(shape, value, at::TensorOptions(group.device()).dtype(dtype));
  };
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kHalf, torch::kBFloat16, torch::kInt, torch::kLong,
                           torch::kBool, torch::kComplexFloat}) {
    auto tensor = full({2, 3}, rank + 1, dtype).t();  // not contiguous
    group.broadcast(tensor, count - 1);
    if (!tensor.equal(full({3, 2}, count, dtype))) return "broadcast";
  }
  auto sum = full({2, 3}, rank + 1, torch::kFloat).t();
  group.all_reduce(sum);
  if (!sum.equal(full({3, 2}, count * (count + 1) / 2, torch::kFloat))) return "sum";
  auto mean = full({5}, rank, torch::kFloat);
  group.all_reduce(mean, Reduce::mean);
  if (!mean.equal(full({5}, count - 1, torch::kFloat) / 2)) return "mean";
  auto largest = full({5}, rank, torch::kLong);
  group.all_reduce(largest, Reduce::max);
  if (!largest.equal(full({5}, count - 1, torch::kLong))) return "max";
  const auto all = group.all_gather(full({rank, 2}, rank, torch::kInt));
  if (static_cast<int>(all.size()) != count) return "number of parts";
  for (int one = 0; one < count; ++one) {
    if (!all[static_cast<std::size_t>(one)].equal(full({one, 2}, one, torch::kInt))) return "all_gather";
  }
  return "right";
}

}  // namespace

TEST_CASE("values_reach_every_rank_to_the_bit") {
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
      // Longer than a frame, and of another length on each rank.
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

TEST_CASE("a_rank_that_there_is_not_is_refused") {
  for (const auto& ended : ranks::run(2, [](Group& group) {
         std::string said;
         const auto refused = [&](const std::function<void()>& act) {
           try {
             act();
             said += "nothing; ";
           } catch (const Error& error) {
             said += std::string(error.what()) + "; ";
           }
         };
         auto tensor = torch::zeros({2});
         refused([&] { group.broadcast(1, 2); });
         refused([&] { group.broadcast(tensor, -1); });
         refused([&] { group.gather(1, 9); });
         refused([&] { group.gather(tensor, 2); });
         return said;
       })) {
    CHECK(ended.text ==
          "broadcast names rank 2 of 2: ranks count from 0 to one below their number; "
          "broadcast names rank -1 of 2: ranks count from 0 to one below their number; "
          "gather names rank 9 of 2: ranks count from 0 to one below their number; "
          "gather names rank 2 of 2: ranks count from 0 to one below their number; ");
    CHECK(ended.code == 0);
  }
}

TEST_CASE("numbers_are_reduced_alike_on_every_rank") {
  all_say(4, "10 2.5 1 4 0.7000000000000001", [](Group& group) {
    const int mine = group.rank() + 1;
    const double parts[] = {0.1, 0.3, 0.2, 0.1};
    return fmt::format("{} {} {} {} {}", group.all_reduce(mine), group.all_reduce(double(mine), Reduce::mean),
                       group.all_reduce(mine, Reduce::min), group.all_reduce(mine, Reduce::max),
                       group.all_reduce(parts[group.rank()]));
  });
}

TEST_CASE("tensors_are_broadcast_reduced_and_gathered_with_uneven_lengths") {
  for (const int count : {1, 3}) all_say(count, "right", try_tensors);
}

TEST_CASE("tensors_on_gpus_are_broadcast_reduced_and_gathered_with_uneven_lengths", "[gpu]") {
  if (ranks::are_on_two_gpus()) all_say(2, "right", try_tensors, c10::kCUDA);
}

TEST_CASE("the_main_ranks_result_or_exception_reaches_every_rank") {
  const auto ended = ranks::run(3, [](Group& group) -> std::string {
    int runs = 0;
    const auto words = group.on_main([&] {
      ++runs;
      return std::map<std::string, int>{{"a", 1}, {"b", 2}};
    });
    std::string said = fmt::format("{} {} ", runs, words.at("b"));
    try {
      group.on_main([]() -> int { throw std::out_of_range("no such word"); });
    } catch (const std::exception& error) {
      said += error.what();
    }
    group.barrier();  // all go on together
    return said;
  });
  CHECK(ended[0].text == "1 2 no such word");
  for (const std::size_t rank : {1, 2}) {
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text.starts_with("0 2 rank 0 threw std::out_of_range in on_main at group_test.cc:"));
    CHECK(ended[rank].text.ends_with(": no such word"));
  }
}

TEST_CASE("main_first_runs_on_the_main_rank_before_the_others") {
  all_say(3, "found", [](Group& group) -> std::string {
    const std::string file = "/tmp/holdfast-main-first-" + std::to_string(::getppid());
    bool there = false;
    group.main_first([&] {
      if (group.is_main()) {
        ::usleep(100000);
        std::fclose(std::fopen(file.c_str(), "w"));
      }
      there = ::access(file.c_str(), F_OK) == 0;
    });
    group.barrier();
    if (group.is_main()) std::remove(file.c_str());
    return there ? "found" : "missing";
  });
}

TEST_CASE("what_was_split_is_gathered_in_order") {
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
