// Mistakes in the command line.
#include <sys/stat.h>

#include "launch/launch.h"

TEST_CASE("a_program_that_cannot_be_started_is_named_with_the_nearest_that_can") {
  ScratchFolder scratch;
  const std::string here = scratch.path().string();
  write_file(scratch / "train", "#!/bin/sh\nexit 0\n");
  write_file(scratch / "train.py", "print(1)\n");
  write_file(scratch / "broken", "#!/no/such/interpreter\n");
  for (const char* name : {"train", "broken"}) ::chmod((here + "/" + name).c_str(), 0755);
  const auto said = [&](const std::string& program) {
    return holdfast_command({"launch", "--nproc", "2", program}, {.folder = here});
  };
  CHECK(said("./train").code == 0);
  CHECK(said("./trian").code == 127);
  CHECK(said("./trian").err == "holdfast launch: there is no program \"./trian\"; did you mean ./train?\n");
  CHECK(said("train").err == "holdfast launch: there is no program \"train\"; did you mean ./train?\n");
  CHECK(said("./train.py").code == 126);
  CHECK(contains(said("./train.py").err, "python3 ./train.py"));
  CHECK(said(here).code == 126);
  CHECK(contains(said(here).err, "is a folder, not a program"));
  CHECK(contains(said("./broken").err, "interpreter"));
}

TEST_CASE("a_wrong_command_line_of_launch_gets_one_sentence") {
  const std::vector<std::pair<Words, std::string>> mistakes = {
      {{}, "there is no program to start"},
      {{"--nproc", "2"}, "there is no program to start"},
      {{"--nproc", "0", "x"}, "--nproc must be auto or a number from 1 to 9999, not \"0\""},
      {{"--nporc", "2", "x"}, "did you mean --nproc?"},
      {{"--holdfast.every", "5", "x"}, "--holdfast.every is an option of the program: put it after the program"},
      {{"./train", "--nproc", "2"}, "--nproc comes after the program, so ./train would receive it"},
      {{"--nnodes", "2", "x"}, "needs --node-rank"},
      {{"--nnodes", "2", "--node-rank", "1", "x"}, "needs --rendezvous HOST:PORT"},
      {{"--nnodes", "2", "--node-rank", "2", "x"}, "nodes count from 0"},
      {{"--rendezvous", "node0", "x"}, "--rendezvous must be HOST:PORT, such as node0:29500, not \"node0\""},
      {{"--max-restarts", "-1", "x"}, "--max-restarts must be at least 0"},
      {{"--grace", "3", "x"}, "--grace must be a time such as 500ms, 30s, 2min or 1h, not \"3\""},
  };
  for (const auto& [words, sentence] : mistakes) {
    const Said said = launch(words);
    INFO(said.err);
    CHECK(said.code == 2);
    CHECK(contains(said.err, sentence));
    CHECK(count(said.err, "\n") == 1);
  }
  CHECK(launch({"--nproc", "1", "--", "sh", "-c", "echo $0", "--nproc"}).out == "--nproc\n");
  const Said help = launch({"--help"});
  CHECK(help.code == 0);
  CHECK(contains(help.out, "Example:\n  holdfast launch "));
  CHECK(contains(help.out, "Exit codes:\n  0  "));
}
