// The first failure: what happens to the other ranks, and the report.
#include "launch/launch.h"

using namespace std::chrono_literals;

TEST_CASE("after_a_failure_the_others_get_five_seconds_then_sigterm_then_sigkill") {
  Launch launch({"--nproc", "4", "--grace", "300ms", "bash", "-c",
                 "case $RANK in "
                 "0) trap 'echo told; exit 0' TERM;; "
                 "1) trap '' TERM;; "
                 "2) sleep 0.5; echo 'I lost a peer' >&2; exit 1;; "
                 "3) echo too late >&2; kill -SEGV $$;; esac; "
                 "echo $$ >$HERE/$RANK; while :; do sleep 0.02; done"});
  const pid_t deaf = launch.process("1");
  const auto begin = std::chrono::steady_clock::now();
  const int code = launch.wait();
  const auto took = std::chrono::steady_clock::now() - begin;
  CHECK(code == 128 + SIGSEGV);
  CHECK(took > 4500ms);
  CHECK(took < 15s);
  CHECK(is_gone(deaf));
  CHECK(count(launch.out(), "[0] told\n") == 1);
  INFO(launch.err());
  CHECK(contains(launch.err(), "[2] I lost a peer\n"));
  const std::string end =
      "holdfast launch: the last line of rank 3 on standard error:\n[3] too late\n"
      "holdfast launch: rank 3 failed first: ended by SIGSEGV\n";
  REQUIRE(launch.err().size() > end.size());
  CHECK(launch.err().substr(launch.err().size() - end.size()) == end);
}

TEST_CASE("a_suspension_of_all_processes_does_not_count_towards_deadlines") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "if [ $RANK = 1 ]; then until [ -e $HERE/go ]; do sleep 0.01; done; exit 3; fi; " +
                     patient("trap 'echo told; exit 0' TERM")});
  REQUIRE(launch.prints("ready"));
  write_file(launch.folder() + "/go", "");
  std::this_thread::sleep_for(500ms);  // during the five seconds after the failure
  launch.signal(SIGTSTP);
  REQUIRE(soon([&] { return state_of(launch.pid()) == 'T'; }));
  std::this_thread::sleep_for(5s);
  launch.signal(SIGCONT);
  std::this_thread::sleep_for(1s);
  CHECK_FALSE(contains(launch.out(), "told"));
}

TEST_CASE("a_failure_by_signal_counts_as_the_first_of_simultaneous_ones") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "echo $$ >$HERE/$RANK; until [ -e $HERE/go ]; do sleep 0.01; done; "
                 "[ $RANK = 0 ] && exit 1; kill -SEGV $$"});
  const pid_t ranks[] = {launch.process("0"), launch.process("1")};
  launch.signal(SIGSTOP);
  REQUIRE(soon([&] { return state_of(launch.pid()) == 'T'; }));
  write_file(launch.folder() + "/go", "");
  for (const pid_t rank : ranks) REQUIRE(soon([&] { return is_gone(rank); }));
  launch.signal(SIGCONT);
  CHECK(launch.wait() == 128 + SIGSEGV);
}

TEST_CASE("the_first_failure_is_shown_last_with_its_last_twenty_lines") {
  const Said said = launch({"--nproc", "2", "sh", "-c",
                            "if [ $RANK = 1 ]; then seq 1 30 >&2; printf 'and no newline' >&2; exit 9; fi; "
                            "sleep 0.3; echo peer gone >&2; exit 1"});
  CHECK(said.code == 9);
  const auto lines = lines_of(said.err);
  REQUIRE(lines.size() == 31 + 1 + 22);
  CHECK(lines[32] == "holdfast launch: the last 20 lines of rank 1 on standard error:");
  CHECK(lines[33] == "[1] 12");
  CHECK(lines[52] == "[1] and no newline");
  CHECK(lines[53] == "holdfast launch: rank 1 failed first: exit code 9");
}

TEST_CASE("exit_codes_0_and_75_are_not_failures") {
  CHECK(launch({"--nproc", "3", "sh", "-c", "exit 0"}).code == 0);
  const Said said = launch({"--nproc", "3", "--max-restarts", "3", "sh", "-c", "[ $RANK = 1 ] && exit 75; exit 0"});
  CHECK(said.code == 75);
  CHECK(said.err.empty());
  CHECK(said.out.empty());
}
