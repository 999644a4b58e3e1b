// What ranks write, and where it appears.
#include <algorithm>
#include <map>

#include "launch/launch.h"

TEST_CASE("lines_of_ranks_are_whole_and_none_is_lost_however_slow_the_reader") {
  ScratchFolder scratch;
  const std::string out = (scratch / "out").string();
  const std::string command = program_beside("holdfast") + " launch --nproc 3 " + program_beside("chatter");
  int lines = 0, length = 0;
  SECTION("many") { lines = 6000, length = 300; }
  SECTION("long") { lines = 3, length = 1'500'000; }
  const int status = std::system((command + " " + std::to_string(lines) + " " + std::to_string(length) +
                                  " | (sleep 0.3; cat) >" + out + "; exit ${PIPESTATUS:-0}")
                                     .c_str());
  CHECK(status == 0);
  std::map<char, int> next;
  const std::string body = std::string(static_cast<std::size_t>(length), 'x') + ".";
  bool whole = true;
  for (const std::string& line : lines_of(content_of(out))) {
    if (line.size() < 2) {
      whole = false;
      break;
    }
    const char rank = line[1];
    const std::string expected =
        std::string("[") + rank + "] " + rank + ":" + std::to_string(next[rank]++) + ":" + body;
    whole = whole && line == expected;
  }
  CHECK(whole);
  CHECK(next == std::map<char, int>{{'0', lines}, {'1', lines}, {'2', lines}});
}

TEST_CASE("standard_error_stays_standard_error_and_one_rank_has_no_prefix") {
  const Said two = launch({"--nproc", "2", "sh", "-c", "echo to out; echo to err >&2"});
  CHECK(count(two.out, "] to out\n") == 2);
  CHECK(count(two.err, "] to err\n") == 2);
  CHECK(!contains(two.out, "err"));
  const Said one = launch({"--nproc", "1", "sh", "-c", "printf '10 %%\\r20 %%\\r'; printf rest; echo to err >&2"});
  CHECK(one.out == "10 %\r20 %\rrest");
  CHECK(one.err == "to err\n");
}

TEST_CASE("one_rank_on_a_terminal_has_the_terminal") {
  Launch launch({"--nproc", "1", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo it is mine"}, true);
  CHECK(launch.wait() == 0);
  CHECK(launch.out() == "it is mine\r\n");
}

TEST_CASE("a_progress_line_of_rank_0_stays_at_the_bottom_of_a_terminal") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "await() { while [ ! -e $HERE/$1 ]; do sleep 0.01; done; }; "
                 "if [ $RANK = 0 ]; then printf '\\r10 %%'; await ended; printf '\\rdone\\n'; "
                 "else await shown; echo hello; await ended; fi"},
                true);
  CHECK(launch.prints("[0] 10 %"));
  write_file(launch.folder() + "/shown", "");
  CHECK(launch.prints("hello"));
  write_file(launch.folder() + "/ended", "");
  CHECK(launch.wait() == 0);
  CHECK(launch.out() == "[0] 10 %\r\x1b[K[1] hello\r\n[0] 10 %\r\x1b[K[0] done\r\n");
}

TEST_CASE("logs_are_a_file_for_each_rank_and_are_appended_to") {
  ScratchFolder scratch;
  const std::string logs = (scratch / "deep/logs").string();
  for (int i = 0; i < 2; ++i) {
    const Said said = launch({"--nproc", "2", "--logs", logs, "sh", "-c",
                              "echo I am $RANK; [ $RANK = 1 ] && echo alas >&2 && exit 4; exit 0"});
    CHECK(said.code == 4);
    CHECK(said.out.empty());
    CHECK(said.err == "holdfast launch: the last 2 lines of rank 1 in " + logs +
                          "/rank-1.log:\n[1] I am 1\n[1] alas\nholdfast launch: rank 1 failed first: exit code 4\n");
  }
  CHECK(count(content_of(logs + "/rank-0.log"), "I am 0\n") == 2);
  CHECK(count(content_of(logs + "/rank-1.log"), "alas\n") == 2);
  CHECK(count(content_of(logs + "/rank-0.log"), "---- start 0 of rank 0 at ") == 2);
}

TEST_CASE("ranks_continue_when_the_reader_of_their_output_leaves") {
  ScratchFolder scratch;
  const std::string told = (scratch / "told").string(), ends = (scratch / "ends").string();
  const std::string rank = "trap 'echo told >>" + told +
                           "' TERM PIPE; for i in \\$(seq 200); do echo more; sleep 0.01; " + "done; echo end >>" +
                           ends;
  const std::string nproc = GENERATE("1", "2");
  const std::string code = (scratch / "code").string(), err = (scratch / "err").string();
  const bool also_errors = GENERATE(false, true);
  const int status =
      std::system(("(" + program_beside("holdfast") + " launch --nproc " + nproc + " sh -c \"" + rank + "\" 2>" +
                   (also_errors ? "&1" : err) + "; echo $? >" + code + ") | head -n 3 >/dev/null")
                      .c_str());
  CHECK(status == 0);
  CHECK(content_of(code) == "0\n");
  CHECK(content_of(told).empty());
  CHECK(count(content_of(ends), "end\n") == std::stoi(nproc));
  if (!also_errors) CHECK(contains(content_of(err), "the reader of standard output is gone; the ranks continue"));
}

TEST_CASE("a_progress_bar_is_written_as_lines_without_a_terminal") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "printf '\\r10 %%'; printf '\\r20 %%'; i=0; until [ -e $HERE/end ]; do i=$((i+1)); printf '\\r30 %%'; "
                 "printf \"\\ri=$i\"; sleep 0.01; done; printf '\\r100 %%\\n'; printf 'windows\\r\\n'"});
  CHECK(launch.prints("[0] 30 %\n"));
  CHECK(launch.prints("[1] 30 %\n"));
  CHECK(launch.prints("[0] ", 4));
  write_file(launch.folder() + "/end", "");
  CHECK(launch.wait() == 0);
  for (const std::string rank : {"[0] ", "[1] "}) {
    const std::string lines = lines_with(rank, launch.out());
    CHECK(contains(lines, rank + "100 %\n" + rank + "windows\n"));
    // Far fewer lines than updates.
    CHECK(count(lines, "i=") + count(lines, "30 %") < 60);
  }
}

TEST_CASE("a_line_without_an_end_does_not_fill_the_memory") {
  const Said said = launch({"--nproc", "2", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x"});
  std::size_t longest = 0, bytes = 0;
  for (const std::string& line : lines_of(said.out)) {
    longest = std::max(longest, line.size());
    bytes += line.size() - 4;
  }
  CHECK(longest < 3'000'000);
  CHECK(bytes == 10'000'000);
}
