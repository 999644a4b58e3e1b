// Ranks find each other at rank 0's address, and report why if they cannot.
#include "ranks/rendezvous.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "holdfast/runtime/ranks/group.h"
#include "message_parts.h"
#include "ranks.h"
#include "ranks/group_control.h"

using namespace holdfast;

TEST_CASE("ranks_determine_their_local_ranks_if_no_launcher_gives_them") {
  const auto ended = ranks::run_processes(
      3,
      [](RankEnvironment place, int) {
        place.local_known = false;
        place.local_rank = 0;
        place.local_world_size = 1;
        if (place.listen_fd) ::close(*place.listen_fd);  // like launchers that do not know Holdfast
        place.listen_fd.reset();
        ::usleep(300000);  // until nothing listens at the address any more
        Group group(place, c10::kCPU, {.join_within = std::chrono::seconds(20)});
        const bool right = group.local_rank() == place.rank;
        holdfast::detail::GroupControl(group).close();
        return right ? 0 : 1;
      },
      std::chrono::seconds(40));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_failed_rendezvous_reports_the_reason", "[full]") {
  // The text of each of three processes that joins with the environment changed by `as`.
  const auto said = [](const std::function<void(RankEnvironment&)>& as, std::chrono::milliseconds patience) {
    return ranks::run_processes(
        3,
        [&](RankEnvironment place, int pipe) {
          const int process = place.rank;
          as(place);
          std::string text;
          const auto note = [&](const std::string& line) { text += line + "\n"; };
          try {
            const Group group(
                place, c10::kCPU,
                {.join_within = patience, .say_waiting_after = std::chrono::milliseconds(100), .say = note});
          } catch (const Error& error) {
            text += error.what();
          }
          (void)!::write(pipe, text.data(), text.size());
          return process;
        },
        std::chrono::seconds(30));
  };
  const auto all_with = [](const std::vector<ranks::Ended>& ended, const std::string& words) {
    for (const auto& one : ended) {
      INFO(one.text);
      CHECK(one.text.find(words) != std::string::npos);
      CHECK(one.seconds < 10);
    }
  };
  const std::chrono::seconds long_enough(25);
  all_with(said([](RankEnvironment& place) { place.world_size += place.rank == 2; }, long_enough),
           "the ranks were started with different numbers of ranks: ");
  all_with(said([](RankEnvironment& place) { place.rank = std::min(place.rank, 1); }, long_enough),
           "two processes claim to be rank 1: pid ");
  const auto alone = said([](RankEnvironment& place) { place.world_size = 5; }, std::chrono::milliseconds(600));
  INFO(alone[0].text);
  const auto error_at = alone[0].text.rfind('\n');  // the line about waiting comes first
  REQUIRE(error_at != std::string::npos);
  for (const auto& line : {alone[0].text.substr(0, error_at), alone[0].text.substr(error_at + 1)}) {
    CHECK(lacking(line, {"2 of 5 ranks", "0 s", "3, 4"}) == "");
  }
}

// Two starts of two ranks with the same address: rank 1 of the second start arrives while rank 0 of the first is still
// running, as after a restart of several hosts.
TEST_CASE("ranks_of_a_new_start_wait_until_the_earlier_starts_store_ends", "[full]") {
  const auto ended = ranks::run_processes(
      4,
      [](RankEnvironment place, int pipe) {
        const int process = place.rank;
        place.world_size = 2;
        place.rank = process % 2;
        const int wait_before[] = {0, 0, 2200, 500};  // ms
        ::usleep(static_cast<unsigned>(wait_before[process]) * 1000);
        ranks::say(pipe, [&] {
          const auto store = join_store(place, "test", "hello", "process " + std::to_string(process),
                                        {.patience = std::chrono::seconds(15), .say = [](const std::string&) {}});
          if (process == 0) ::usleep(1500000);
          return "met";
        });
        return 0;
      },
      std::chrono::seconds(20));
  for (const auto& one : ended) CHECK(one.text == "met");
}

TEST_CASE("rank_0_keeps_the_store_until_the_others_have_left") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int) {
        const auto store = join_store(place, "test", "hello", std::to_string(place.rank), {});
        if (place.rank == 1) ::usleep(800000);
        const auto begin = ranks::Clock::now();
        leave_store(*store, place, std::chrono::seconds(10));
        return ranks::Clock::now() - begin > std::chrono::milliseconds(400) ? 1 : 0;
      },
      std::chrono::seconds(20));
  CHECK(ended[0].code == 1);  // it waited
  CHECK(ended[1].code == 0);
}

TEST_CASE("an_unresponsive_listener_at_rank_0s_address_does_not_hang_the_others", "[full]") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int pipe) {
        if (place.rank == 0) return ::sleep(5) == 0 ? 0 : 1;  // its socket listens but does not answer
        ranks::say(pipe, [&] {
          const Group group(place, c10::kCPU, {.join_within = std::chrono::seconds(1)});
          return "";
        });
        return 0;
      },
      std::chrono::seconds(8));
  INFO(ended[1].text);
  CHECK(ended[1].text.starts_with("rank 1 "));
  CHECK(lacking(ended[1].text, {"rank 0 at 127.0.0.1", "does not answer"}) == "");
  CHECK(ended[1].seconds < 5);
}

TEST_CASE("a_listening_socket_that_was_not_inherited_is_reported") {
  const auto ended = ranks::run_processes(
      1,
      [](RankEnvironment place, int pipe) {
        place.world_size = 2;
        place.listen_fd = pipe;
        ranks::say(pipe, [&] {
          const Group group(place, c10::kCPU);
          return "";
        });
        return 0;
      },
      std::chrono::seconds(10));
  CHECK(ended[0].text.starts_with("rank 0 "));
  CHECK(lacking(ended[0].text, {"socket", "holdfast launch", "descriptor"}) == "");
}
