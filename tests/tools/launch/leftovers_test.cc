// Processes that ranks started: none outlives its rank and launch.
#include <sstream>

#include "launch/launch.h"

using namespace std::chrono_literals;

TEST_CASE("launch_leaves_no_process_behind_when_it_is_killed") {
  // A child in a session of its own that ignores SIGTERM, and a rank that ignores it too. A rank with an emptied
  // environment must not survive either.
  Launch launch({"--nproc", "3", "bash", "-c",
                 "[ $RANK = 2 ] && echo $$ >$HERE/bare && exec env -i sleep 600; "
                 "trap '' TERM; setsid bash -c 'echo $$ >$HERE/child$RANK; exec sleep 600' & "
                 "(sleep 600 & echo $! >$HERE/orphan$RANK); echo $$ >$HERE/rank$RANK; while :; do sleep 600; done"});
  std::vector<pid_t> pids;
  for (const std::string name : {"child0", "child1", "orphan0", "orphan1", "rank0", "rank1", "bare"}) {
    pids.push_back(launch.process(name));
  }
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  for (const pid_t pid : pids) CHECK(soon([&] { return is_gone(pid); }));
  // The temporary folder is removed last.
  CHECK(soon([&] { return !has_temporary_folder(launch.folder()); }));
}

TEST_CASE("a_guard_that_was_killed_is_replaced") {
  Launch launch({"--nproc", "1", "bash", "-c", "setsid sleep 600 & echo $! >$HERE/away; wait"});
  const pid_t away = launch.process("away");
  const auto guard = [&] {
    const std::string pid = std::to_string(launch.pid());
    std::istringstream children(content_of("/proc/" + pid + "/task/" + pid + "/children"));
    for (pid_t child = 0; children >> child;) {
      if (content_of("/proc/" + std::to_string(child) + "/comm") == "launch-guard\n") return child;
    }
    return pid_t{0};
  };
  REQUIRE(soon([&] { return guard() > 0; }));
  const pid_t first = guard();
  ::kill(first, SIGKILL);
  // One look: between two, the first guard may have gone and the next may not be there.
  CHECK(soon([&] {
    const pid_t now = guard();
    return now > 0 && now != first;
  }));
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  CHECK(soon([&] { return is_gone(away); }));
}

TEST_CASE("a_launch_inside_a_launch_that_is_killed_leaves_nothing_behind_either") {
  Launch launch({"--nproc", "1", "--", program_beside("holdfast"), "launch", "--nproc", "2", "bash", "-c",
                 "setsid sleep 600 & echo $! >$HERE/away$RANK; wait"});
  const pid_t away[] = {launch.process("away0"), launch.process("away1")};
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  for (const pid_t pid : away) CHECK(soon([&] { return is_gone(pid); }));
  CHECK(soon([&] { return !has_temporary_folder(launch.folder()); }));
}

TEST_CASE("processes_that_a_rank_started_end_with_it") {
  Launch launch(
      {"--nproc", "2", "bash", "-c",
       "trap '' TERM; sleep 600 & echo $! >$HERE/child$RANK; setsid sleep 600 & echo $! >$HERE/away$RANK; exit 0"});
  const auto begin = std::chrono::steady_clock::now();
  CHECK(launch.wait() == 0);
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
  for (const std::string name : {"child0", "child1", "away0", "away1"}) CHECK(is_gone(launch.process(name)));
}

TEST_CASE("processes_of_a_failed_rank_end_while_the_others_continue") {
  // The child could hold open a connection whose end the others wait for.
  Launch launch({"--nproc", "2", "sh", "-c",
                 "if [ $RANK = 1 ]; then sleep 600 & echo $! >$HERE/child; exit 3; fi; " + patient("")});
  const pid_t child = launch.process("child");
  const auto begin = std::chrono::steady_clock::now();
  CHECK(soon([&] { return is_gone(child); }));
  CHECK(std::chrono::steady_clock::now() - begin < 4s);  // after five the others are asked to stop
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 3);
}

TEST_CASE("a_child_of_a_rank_that_was_asked_to_stop_may_finish") {
  // sh ends at the signal; the process that it had started is still saving.
  Launch launch(
      {"--nproc", "2", "sh", "-c",
       "(trap 'sleep 0.2; echo saved' TERM; echo ready; while :; do sleep 0.02; [ -e $HERE/end ] && exit; done) "
       "& wait"});
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGTERM);
  CHECK(launch.prints("saved", 2));
  write_file(launch.folder() + "/end", "");
  CHECK(launch.wait() == 128 + SIGTERM);
}
