#include "runs.h"

TEST_CASE("every_command_has_help_with_an_example_and_its_exit_codes") {
  for (const std::string verb : {"ls", "show", "verify", "diff"}) {
    const Said said = holdfast_command({verb, "--help"});
    CHECK(said.code == 0);
    CHECK(said.out.find("Example:\n  holdfast " + verb) != std::string::npos);
    CHECK(said.out.find("Exit codes:\n  0  ") != std::string::npos);
    CHECK(said.out.find("--json") != std::string::npos);
  }
  CHECK(holdfast_command({"--version"}).out.find("holdfast 0.") == 0);
  CHECK(holdfast_command({}).code == 2);
}

TEST_CASE("an_unknown_command_gets_the_nearest_one") {
  const Said said = holdfast_command({"verfy"});
  CHECK(said.code == 2);
  CHECK(said.err == "holdfast: unknown command \"verfy\"; did you mean verify?\n");
  CHECK(holdfast_command({"frobnicate"}).err ==
        "holdfast: unknown command \"frobnicate\"; the commands are ls, show, verify, diff, copy, doctor, launch\n");
}

TEST_CASE("an_unknown_argument_is_named_with_a_remedy") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes = {
      {{"ls", "--jsn"}, "\"--jsn\" is not an option of holdfast ls; did you mean --json?"},
      {{"ls", "a", "b"}, "holdfast ls: unexpected argument \"b\"; see holdfast ls --help"},
      {{"show", "x", "--filter"}, "--filter needs a value; see holdfast show --help"},
      {{"launch", "--logs"}, "--logs needs a value; see holdfast launch --help"},
      {{"--nope", "ls"},
       "\"--nope\" is not an option of holdfast; begin with a command: ls, show, verify, diff, copy, doctor, launch"},
  };
  for (const auto& [words, sentence] : mistakes) {
    const Said said = holdfast_command(words);
    CHECK(said.code == 2);
    CHECK(said.err == "holdfast: " + sentence + "\n");
  }
}

TEST_CASE("errors_are_json_too") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"show", "/nowhere/at/all", "--json"},
                                                {"diff", "--json"},
                                                {"verfy", "--json"},
                                                {"ls", "--nonsense", "--json"}}) {
    const Said said = holdfast_command(words);
    INFO(said.out);
    CHECK(said.code >= 2);
    CHECK(said.json()["error"]["exit"] == said.code);
    CHECK(said.json()["error"]["message"].get<std::string>().size() > 10);
    CHECK(said.err.empty());
  }
}

TEST_CASE("colour_appears_only_on_terminals_that_allow_it") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10});
  const std::vector<std::string> words = {"ls", (scratch / "mnist").string()};
  CHECK(holdfast_command(words).out.find('\x1b') == std::string::npos);
  CHECK(holdfast_command(words, {.on_terminal = true}).out.find('\x1b') != std::string::npos);
  CHECK(holdfast_command(words, {.on_terminal = true, .no_color = true}).out.find('\x1b') == std::string::npos);
}

TEST_CASE("a_closed_output_pipe_is_not_an_error_and_a_full_disk_is") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", std::vector<int>(40, 1));
  const std::string command = program_beside("holdfast") + " show --json " + (scratch / "mnist").string();
  const std::string err = (scratch / "err").string();
  // The shell waits until the reader has closed its end before holdfast writes.
  CHECK(std::system(("(trap '' PIPE; (sleep 0.2; exec " + command + ") 2>" + err + ") | true").c_str()) == 0);
  CHECK(content_of(err).empty());
  const int status = std::system((command + " >/dev/full 2>" + err).c_str());
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(content_of(err).find("cannot write to standard output: No space left") != std::string::npos);
}
