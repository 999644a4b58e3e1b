// A group and its program: calls of several threads, warnings, a blocked terminal, and what the main rank does alone.
#include "holdfast/runtime/ranks/group.h"

#include <fmt/format.h>
#include <torch/torch.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "all_say.h"
#include "catch.h"
#include "data/prefetch_queue.h"
#include "ranks.h"
#include "ranks/group_control.h"

namespace {

using namespace holdfast;
using ranks::all_say;

}  // namespace

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
