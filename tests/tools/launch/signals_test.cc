// Signals to launch, and what reaches the ranks.
#include "launch/launch.h"

using namespace std::chrono_literals;

TEST_CASE("ctrl_c_reaches_each_rank_once") {
  const std::string rank = patient("n=0; trap 'n=$((n+1)); echo \"int $n\"; [ $n = 2 ] && exit 75' INT");
  const std::string nproc = GENERATE("1", "2");
  const bool on_terminal = GENERATE(true, false);
  const int ranks = std::stoi(nproc);
  Launch launch({"--nproc", nproc, "sh", "-c", rank}, on_terminal);
  const auto interrupt = [&] { on_terminal ? launch.type('\x03') : launch.signal(SIGINT); };
  REQUIRE(launch.prints("ready", ranks));
  interrupt();
  CHECK(launch.prints("int 1", ranks));
  std::this_thread::sleep_for(100ms);  // a second one would arrive within this time
  CHECK(!contains(launch.out(), "int 2"));
  interrupt();
  CHECK(launch.wait() == 75);
  CHECK(count(launch.out(), "int 2") == ranks);
}

TEST_CASE("a_second_ctrl_c_ends_ranks_that_ignore_signals") {
  Launch launch({"--nproc", "2", "--grace", "200ms", "sh", "-c", patient("trap '' INT TERM")});
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGINT);
  std::this_thread::sleep_for(100ms);
  launch.signal(SIGINT);
  CHECK(soon([&] { return is_gone(launch.pid()); }));
  CHECK(launch.wait() == 128 + SIGKILL);
}

TEST_CASE("a_suspended_rank_receives_sigterm_too") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "[ $RANK = 1 ] && trap 'echo woken; exit 75' TERM && echo $$ >$HERE/still && kill -STOP $$; "
                 "echo ready; sleep 0.1; while :; do sleep 0.02; done"});
  const pid_t still = launch.process("still");
  CHECK(soon([&] { return state_of(still) == 'T'; }));
  CHECK(launch.prints("ready"));
  launch.signal(SIGTERM);
  CHECK(launch.prints("woken"));
  CHECK(launch.wait() == 128 + SIGTERM);
}

TEST_CASE("signals_are_passed_on_to_every_rank") {
  Launch launch(
      {"--nproc", "2", "sh", "-c",
       patient("trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'echo hup' HUP; trap 'echo term; exit 75' TERM")});
  REQUIRE(launch.prints("ready", 2));
  for (const auto& [number, name] : {std::pair(SIGUSR1, "usr1"), {SIGUSR2, "usr2"}, {SIGHUP, "hup"}}) {
    launch.signal(number);
    CHECK(launch.prints(name, 2));
  }
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 75);
  CHECK(count(launch.out(), "term") == 2);
}

TEST_CASE("a_hangup_that_the_parent_ignored_is_not_a_stop_request") {
  Launch launch(
      {"--nproc", "2", "--max-restarts", "1", "--backoff", "1ms", "sh", "-c",
       "[ $HOLDFAST_RESTART = 1 ] && exit 0; echo ready; while [ ! -e $HERE/go ]; do sleep 0.01; done; exit 3"},
      false, true);
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGHUP);
  write_file(launch.folder() + "/go", "");
  CHECK(launch.wait() == 0);  // if it were asked to stop, it would not start them again
}

TEST_CASE("ranks_are_suspended_and_continued_with_launch") {
  Launch launch({"--nproc", "2", "sh", "-c", "echo $$ >$HERE/$RANK; exec sleep 600"});
  const pid_t ranks[] = {launch.process("0"), launch.process("1")};
  const auto all = [&](bool stopped) {
    return (state_of(launch.pid()) == 'T') == stopped && (state_of(ranks[0]) == 'T') == stopped &&
           (state_of(ranks[1]) == 'T') == stopped;
  };
  launch.signal(SIGTSTP);
  CHECK(soon([&] { return all(true); }));
  launch.signal(SIGCONT);
  CHECK(soon([&] { return all(false); }));
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 128 + SIGTERM);
}
