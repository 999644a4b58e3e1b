// Restarts after a failure, and when there are none.
#include "launch/launch.h"

TEST_CASE("ranks_are_started_again_after_a_failure") {
  const Said said = launch({"--nproc", "2", "--max-restarts", "2", "--backoff", "10ms", "sh", "-c",
                            "echo \"start $HOLDFAST_RESTART\"; [ $HOLDFAST_RESTART = 2 ] || exit 3"});
  CHECK(said.code == 0);
  for (const std::string rank : {"0", "1"}) {
    for (const std::string start : {"0", "1", "2"}) CHECK(contains(said.out, "[" + rank + "] start " + start + "\n"));
  }
  CHECK(contains(said.err, "exit code 3; restart 1 of 2 in 10 ms\n"));
  CHECK(contains(said.err, "exit code 3; restart 2 of 2 in 20 ms\n"));
}

TEST_CASE("restarts_end_when_they_are_used_up_or_useless") {
  const Words often = {"--nproc", "2", "--max-restarts", "9", "--backoff", "1ms", "sh", "-c"};
  const auto with = [&](const std::string& script) {
    Words words = often;
    words.push_back(script);
    return launch(words);
  };
  const Said loop = with("exit 3");
  CHECK(loop.code == 70);
  CHECK(contains(loop.err, "not restarted: 3 failures in a row without a newer saved step; exit code 70\n"));
  CHECK(count(loop.err, "failed first") == 3);

  // Two steps are saved in the first two starts; none later.
  const Said stuck =
      with("[ $RANK = 0 ] && [ $HOLDFAST_RESTART -lt 2 ] && echo 10$HOLDFAST_RESTART >$HOLDFAST_PROGRESS; exit 3");
  CHECK(stuck.code == 70);
  CHECK(count(stuck.err, "failed first") == 5);
  CHECK(contains(stuck.err, "without a newer saved step than 101;"));

  const Said going = with("[ $RANK = 0 ] && echo $HOLDFAST_RESTART >$HOLDFAST_PROGRESS; exit 3");
  CHECK(going.code == 3);
  CHECK(contains(going.err, "not restarted: all 9 restarts of --max-restarts are used\n"));
  CHECK(count(going.err, "failed first") == 10);

  for (const int useless : {64, 69}) {
    const Said once = with("exit " + std::to_string(useless));
    CHECK(once.code == useless);
    CHECK(count(once.err, "failed first") == 1);
  }
}

TEST_CASE("launch_restarts_nothing_after_a_stop_request") {
  SECTION("while ranks run") {
    Launch launch({"--nproc", "2", "--max-restarts", "5", "--backoff", "1ms", "sh", "-c", patient("")});
    REQUIRE(launch.prints("ready", 2));
    launch.signal(SIGTERM);
    CHECK(launch.wait() == 128 + SIGTERM);
    CHECK(count(launch.out(), "ready") == 2);
  }
  SECTION("in the pause before a restart") {
    Launch launch({"--nproc", "2", "--max-restarts", "5", "--backoff", "10min", "sh", "-c", "exit 3"});
    REQUIRE(soon([&] { return contains(launch.err(), "restart 1 of 5 in 10 min"); }));
    launch.signal(SIGTERM);
    CHECK(launch.wait() == 75);
  }
}
