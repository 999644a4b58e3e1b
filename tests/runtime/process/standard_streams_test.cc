// For a program whose standard streams the caller closed: its output must never end up in a version's file.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

std::string logs_of(const boost::filesystem::path& run) {
  std::string text;
  for (const auto& file : boost::filesystem::directory_iterator(run / "logs")) {
    std::ifstream stream(file.path().string());
    text.append(std::istreambuf_iterator<char>(stream), {});
  }
  return text;
}

}  // namespace

TEST_CASE("a_run_whose_output_is_closed_continues_to_its_end_and_writes_its_log") {
  for (const int count : {1, 2}) {
    const ScratchFolder folder;
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      std::string words[] = {"train", "--holdfast.dir=" + folder.path().string()};
      char* argv[] = {words[0].data(), words[1].data(), nullptr};
      int argc = 2;
      auto session = holdfast::Session::start(argc, argv, {.run = "run", .every = "2", .device = "cpu"});
      std::uint64_t done = 0;
      session.track("done", done);
      for (auto& step : session.steps({.count = 6})) {
        done = step.number();
        if (step.number() != 2) continue;
        int ends[2];
        if (::pipe(ends) != 0) return 3;
        ::close(ends[0]);
        ::dup2(ends[1], STDOUT_FILENO);
        ::dup2(ends[1], STDERR_FILENO);
      }
      session.print("the program's own last line");
      std::printf("more\n");
      std::fflush(stdout);
      return session.finish();
    });
    for (const auto& rank : ended) {
      INFO(rank.text);
      CHECK(rank.code == 0);
    }
    const std::string log = logs_of(folder.path() / "run");
    INFO(log);
    CHECK(log.find("at step 6 ") != std::string::npos);
    CHECK(log.find("the program's own last line") != std::string::npos);
  }
}

// A batch system may send SIGTERM to all processes of a job, and then again.
TEST_CASE("a_run_that_is_told_to_stop_again_and_again_ends_with_the_code_of_its_save") {
  for (const int count : {1, 2}) {
    const ScratchFolder folder;
    const auto ended = ranks::run_sessions(
        count,
        [&]() -> int {
          std::string words[] = {"train", "--holdfast.dir=" + folder.path().string()};
          char* argv[] = {words[0].data(), words[1].data(), nullptr};
          int argc = 2;
          int code = 0;
          {
            auto session = holdfast::Session::start(argc, argv, {.run = "run", .every = "never", .device = "cpu"});
            std::uint64_t done = 0;
            session.track("done", done);
            for (auto& step : session.steps({.count = 100000})) {
              done = step.number();
              ranks::note_fact();
              ::usleep(5000);
            }
            code = session.finish();
          }
          ::usleep(400000);  // the end of the process: LibTorch takes some time to unload
          return code;
        },
        std::chrono::seconds(30),
        [&](const std::vector<pid_t>& pids) {
          while (ranks::fact() == 0) ::usleep(1000);
          ::usleep(100000);
          for (int i = 0; i < 60; ++i) {
            for (const pid_t pid : pids) ::kill(pid, SIGTERM);
            ::usleep(30000);
          }
        });
    for (const auto& rank : ended) {
      INFO(rank.text);
      CHECK(rank.code == holdfast::kRunAgain);
    }
    CHECK(ended[0].text.find("(SIGTERM), saved as version") != std::string::npos);
  }
}

TEST_CASE("no_file_of_a_session_takes_the_number_of_a_standard_stream_that_was_closed") {
  const pid_t child = ::fork();
  if (child == 0) {
    []() noexcept {  // an exception must not let the child continue with the other tests
      for (int stream : {0, 1, 2}) ::close(stream);
      char name[] = "train";
      char* argv[] = {name, nullptr};
      int argc = 1;
      auto session = holdfast::Session::start(argc, argv, {.device = "cpu"});
      const int next = ::open("/dev/null", O_RDONLY);
      ::_exit(next > 2 ? 0 : 1);
    }();
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
