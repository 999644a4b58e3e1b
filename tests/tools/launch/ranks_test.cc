// What a rank finds at its start: its place in the world, the rendezvous, its share of the host.
#include <map>

#include "launch/launch.h"

TEST_CASE("launch_gives_each_rank_its_number_and_the_rendezvous") {
  const Said said = launch({"--nproc", "2", "sh", "-c",
                            "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $HOLDFAST_LAUNCH "
                            "$HOLDFAST_RESTART ${OMP_NUM_THREADS:+threads} ${HOLDFAST_PROGRESS:+progress}\""});
  CHECK(said.code == 0);
  CHECK(contains(said.out, "[0] 0/2 0/2 127.0.0.1 1 0 threads progress\n"));
  CHECK(contains(said.out, "[1] 1/2 1/2 127.0.0.1 1 0 threads progress\n"));
  CHECK(said.err.empty());

  const Said far =
      launch({"--nproc", "2", "--nnodes", "3", "--node-rank", "1", "--rendezvous", "[::1]:29500", "sh", "-c",
              "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT "
              "${HOLDFAST_LISTEN_FD:-none}\""});
  CHECK(far.code == 0);
  CHECK(contains(far.out, "[2] 2/6 0/2 ::1 29500 none\n"));
  CHECK(contains(far.out, "[3] 3/6 1/2 ::1 29500 none\n"));
}

TEST_CASE("ranks_of_a_host_share_its_cores_unless_the_user_sets_the_threads") {
  const std::string cores = "n=$(($(env -u OMP_NUM_THREADS nproc) / 2)); [ $n -gt 0 ] || n=1; ";
  ::unsetenv("OMP_NUM_THREADS");
  const Said shared = launch({"--nproc", "2", "sh", "-c", cores + "[ $OMP_NUM_THREADS = $n ] && echo a half"});
  CHECK(count(shared.out, "] a half\n") == 2);
  ::setenv("OMP_NUM_THREADS", "77", 1);
  const Said said = launch({"--nproc", "2", "sh", "-c", "echo $OMP_NUM_THREADS"});
  ::unsetenv("OMP_NUM_THREADS");
  CHECK(count(said.out, "] 77\n") == 2);
}

TEST_CASE("launch_gives_rank_0_alone_a_listening_socket") {
  // Rank 0 waits for rank 1, because the socket listens only until rank 0 ends. The last line counts the rank's
  // descriptors beyond the first three, without those of launch's parent.
  ScratchFolder scratch;
  const std::string tried = (scratch / "tried").string();
  const Said said = launch({"--nproc", "2", "bash", "-c",
                            "if [ $RANK = 1 ]; then : <>/dev/tcp/127.0.0.1/$MASTER_PORT && echo connected; echo >" +
                                tried + "; else until [ -e " + tried + " ]; do sleep 0.05; done; fi;" +
                                "echo \"fd ${HOLDFAST_LISTEN_FD:-none}\";"
                                "echo sockets $(ls -l /proc/$$/fd | grep -c socket:)"});
  INFO(said.out << said.err);
  CHECK(said.code == 0);
  CHECK(contains(said.out, "[1] connected\n"));
  CHECK(contains(said.out, "[1] fd none\n"));
  CHECK(!contains(said.out, "[0] fd none\n"));
  std::map<char, int> sockets;
  for (const std::string& line : lines_of(said.out)) {
    if (line.substr(4, 8) == "sockets ") sockets[line[1]] = std::stoi(line.substr(12));
  }
  CHECK(sockets['0'] == sockets['1'] + 1);
}

TEST_CASE("ranks_meet_at_launch_however_launch_itself_was_started") {
  ::setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
  ::setenv("HOLDFAST_LISTEN_FD", "77", 1);
  const Said said =
      launch({"--nproc", "2", "sh", "-c", "echo ${TORCHELASTIC_USE_AGENT_STORE:-no} $HOLDFAST_LISTEN_FD"});
  ::unsetenv("TORCHELASTIC_USE_AGENT_STORE");
  ::unsetenv("HOLDFAST_LISTEN_FD");
  CHECK(count(said.out, "] no") == 2);
  CHECK(!contains(said.out, "77"));
}

TEST_CASE("too_few_open_files_for_the_ranks_are_reported") {
  ScratchFolder scratch;
  const std::string err = (scratch / "err").string();
  const int status =
      std::system(("ulimit -n 32; " + program_beside("holdfast") + " launch --nproc 40 true 2>" + err).c_str());
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(contains(content_of(err), "rank "));
  CHECK(contains(content_of(err), "(ulimit -n shows how many files may be open here): Too many open files"));
}

TEST_CASE("launch_works_the_same_however_it_was_started") {
  ScratchFolder scratch;
  const auto code = [&](const std::string& before, const std::string& words, const std::string& after) {
    write_file(scratch / "start", before + "exec " + program_beside("holdfast") + " launch --nproc 2 " + words + after);
    return WEXITSTATUS(std::system(("timeout -s KILL 20 bash " + (scratch / "start").string()).c_str()));
  };
  CHECK(code("trap '' CHLD; ", "sh -c '[ $RANK = 0 ] || exit 3'", " 2>/dev/null") == 3);
  // No standard streams: what launch reports about the first failure must not reach files that it opened for itself.
  const std::string logs = (scratch / "logs").string();
  CHECK(code("",
             "--max-restarts 1 --backoff 100ms --logs " + logs +
                 " sh -c 'echo hi; [ $HOLDFAST_RESTART = 1 ] || exit 3; sleep 0.5; echo there'",
             " <&- >&- 2>&-") == 0);
  for (const std::string rank : {"0", "1"}) {
    const std::string log = content_of(logs + "/rank-" + rank + ".log");
    CHECK(contains(log, "hi\nthere\n"));
    CHECK_FALSE(contains(log, "holdfast launch"));
  }
}
