// A file of its own, so that no test before it has started CUDA: a forked child cannot use it then.
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "catch.h"
#include "holdfast/runtime/session.h"
#include "storage/scratch_folder.h"

TEST_CASE("an_error_that_nobody_catches_is_one_sentence_and_exit_code_1") {
  const ScratchFolder folder;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    const std::string missing = "--holdfast.dir=" + (folder / "no" / "such").string();
    std::string words[] = {"program", missing};
    char* argv[] = {words[0].data(), words[1].data(), nullptr};
    int argc = 2;
    [&]() noexcept {
      auto session = holdfast::Session::start(argc, argv, {.run = "run", .device = "cpu"});
      session.restore();
    }();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  CHECK(said == "holdfast: there is no folder " + (folder / "no").string() +
                    " to make such in; make it, mount it, or choose another folder with --holdfast.dir\n");
}
