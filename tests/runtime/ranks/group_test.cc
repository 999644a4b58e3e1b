// Values and tensors reach every rank, and calls that cannot work are refused on all of them.
#include "holdfast/runtime/ranks/group.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "data/prefetch_queue.h"
#include "ranks.h"
#include "ranks/group_control.h"

namespace {

using namespace holdfast;
using nlohmann::json;

// Every rank's `body` succeeds and returns `expected`.
void all_say(int count, const std::string& expected, const std::function<std::string(Group&)>& body,
             c10::DeviceType device = c10::kCPU) {
  const auto ended = ranks::run(count, body, std::chrono::seconds(60), device);
  for (std::size_t rank = 0; rank < ended.size(); ++rank) {
    INFO("rank " << rank << " of " << count);
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text == expected);
  }
}

// The text of every rank: which operation gave a wrong tensor.
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

TEST_CASE("tensors_are_broadcast_reduced_and_gathered_with_uneven_lengths") {
  for (const int count : {1, 3}) all_say(count, "right", try_tensors);
}

TEST_CASE("tensors_on_gpus_are_broadcast_reduced_and_gathered_with_uneven_lengths", "[gpu]") {
  if (ranks::are_on_two_gpus()) all_say(2, "right", try_tensors, c10::kCUDA);
}

TEST_CASE("invalid_calls_are_refused_with_the_reason_and_the_group_stays_usable") {
  struct Case {
    std::function<void(Group&)> act;
    const char* words;
  };
  const auto sum = [](torch::Tensor tensor) { return [tensor](Group& group) mutable { group.all_reduce(tensor); }; };
  const std::vector<Case> cases = {
      {sum(torch::ones({3}, torch::kShort)), "a cpu Short tensor [3]"},
      {sum(torch::ones({3}).to(torch::kFloat8_e4m3fn)), "Float8_e4m3fn tensor [3]"},
      {sum(torch::eye(3).to_sparse()), "takes dense tensors; to_dense() makes one"},
      {sum(torch::ones({1}).expand({4})), "share memory"},
      {sum(torch::Tensor()), "undefined tensor"},
      {[](Group& group) {
         auto tensor = torch::ones({3});
         group.broadcast(tensor, 7);
       },
       "names rank 7, but the ranks are 0 to 1"},
      // Refused before anything is sent to the others, so the error also occurs when one rank alone makes the call.
      {[](Group& group) {
         if (group.is_main()) (void)group.all_reduce(3, holdfast::Reduce::mean);
         throw std::runtime_error("the mean of integers");
       },
       "the mean of integers"},
      {[](Group& group) { (void)group.broadcast(3, -1); }, "names rank -1, but the ranks are 0 to 1"},
      {[](Group& group) { (void)group.gather(3, 2); }, "names rank 2, but the ranks are 0 to 1"},
      {[](Group& group) { (void)group.gather(torch::ones({3}), 9); }, "names rank 9, but the ranks are 0 to 1"},
  };
  all_say(2, "right", [&](Group& group) -> std::string {
    const auto begin = ranks::Clock::now();
    for (const Case& one : cases) {
      std::string said = "nothing";
      try {
        one.act(group);
      } catch (const std::exception& error) {
        said = error.what();
      }
      if (said.find(one.words) == std::string::npos) return said + " instead of " + one.words;
      group.barrier();
    }
    auto conjugate = torch::full({3}, c10::complex<float>(static_cast<float>(group.rank()), 2)).conj();
    group.broadcast(conjugate, 1);
    if (!conjugate.equal(torch::full({3}, c10::complex<float>(1, -2)))) return "a conjugate arrived with other values";
    return ranks::Clock::now() - begin < std::chrono::seconds(2) ? "right" : "late";
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

TEST_CASE("concurrent_calls_of_two_threads_are_detected") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    std::atomic<bool> wrong = false;
    std::mutex mutex;
    std::string said;
    std::vector<std::thread> threads;
    for (int mine = 1; mine <= 3; ++mine) {
      threads.emplace_back([&, mine] {
        try {
          for (int i = 0; i < 300; ++i) wrong = wrong || group.all_reduce(mine) != 2 * mine;
        } catch (const RankFault& fault) {
          const std::lock_guard lock(mutex);
          said = fault.what();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    return wrong ? "wrong" : said;
  });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.text.find("while another of its threads is in all_reduce at group_test.cc:") != std::string::npos);
  }
}

TEST_CASE("warnings_of_the_program_are_shown_with_several_ranks_too") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int pipe) {
        ::dup2(pipe, STDERR_FILENO);
        ::unsetenv("TORCH_CPP_LOG_LEVEL");
        Group group(place, c10::kCPU, {.join_within = std::chrono::seconds(20)});
        TORCH_WARN("this looks wrong on rank ", place.rank);
        PrefetchQueue workers(1);
        workers.push([&] {
          TORCH_WARN("and this in a worker of rank ", place.rank);
          return nullptr;
        });
        (void)workers.pop();
        holdfast::detail::GroupControl(group).close();
        return 0;
      },
      std::chrono::seconds(30));
  for (const std::size_t rank : {0, 1}) {
    INFO(ended[rank].text);
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text.find("Warning: this looks wrong on rank " + std::to_string(rank)) != std::string::npos);
    CHECK(ended[rank].text.find("in a worker of rank " + std::to_string(rank)) != std::string::npos);
  }
}

TEST_CASE("a_blocked_terminal_does_not_delay_the_report_of_a_fault", "[full]") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int pipe) {
        std::atomic<bool> stuck = false;
        const auto say = [&](const std::string&) {
          stuck = true;
          ::sleep(1000);
        };
        try {
          Group group(place, c10::kCPU,
                      {.join_within = std::chrono::seconds(20),
                       .say_waiting_after = std::chrono::milliseconds(100),
                       .say = say});
          group.barrier();
          if (place.rank == 1) {
            ::sleep(2);
            ::_exit(3);
          }
          try {
            group.barrier();
          } catch (const holdfast::RankFault& fault) {
            const std::string text = (stuck ? "stuck, but: " : "not stuck: ") + std::string(fault.what());
            (void)!::write(pipe, text.data(), text.size());
            ::_exit(1);
          }
        } catch (const std::exception&) {
        }
        return 9;
      },
      std::chrono::seconds(20));
  INFO(ended[0].text);
  CHECK(ended[0].code == 1);
  CHECK(ended[0].text.find("stuck, but: rank 1 ") == 0);
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
    try {
      group.on_main([]() -> int { TORCH_CHECK(false, "no such tensor"); });
    } catch (const holdfast::Error& error) {
      said += error.what();
    } catch (const c10::Error& error) {
      said += error.what_without_backtrace();
    }
    group.barrier();  // all ranks continue together
    return said;
  });
  CHECK(ended[0].text == "1 2 no such wordno such tensor");
  for (const std::size_t rank : {1, 2}) {
    CHECK(ended[rank].code == 0);
    CHECK(ended[rank].text.starts_with("0 2 rank 0 threw std::out_of_range in on_main at group_test.cc:"));
    CHECK(ended[rank].text.find(": no such wordrank 0 threw c10::Error in on_main at ") != std::string::npos);
    CHECK(ended[rank].text.ends_with(": no such tensor"));  // without LibTorch's stack frames
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
