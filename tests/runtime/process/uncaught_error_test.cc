// In its own file, so that no earlier test has started CUDA: a forked child could not use it.
#include "process/uncaught_error.h"

#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "storage/scratch_folder.h"

namespace {

std::string read_to_end(int pipe) {
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(pipe, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(pipe);
  return text;
}

// What a program prints when an exception of its session is not caught, and how it ends.
std::string last_words(const boost::filesystem::path& folder, const std::function<void(holdfast::Session&)>& body,
                       int& status) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::signal(SIGABRT, SIG_DFL);  // otherwise Catch reports it as its own failure
    std::string words[] = {"program", "--holdfast.dir=" + folder.string()};
    char* argv[] = {words[0].data(), words[1].data(), nullptr};
    int argc = 2;
    [&]() noexcept {
      auto session = holdfast::Session::start(argc, argv, {.run = "run", .device = "cpu"});
      body(session);
    }();
    ::_exit(0);
  }
  ::close(ends[1]);
  const std::string said = read_to_end(ends[0]);
  ::waitpid(child, &status, 0);
  return said;
}

}  // namespace

TEST_CASE("an_uncaught_error_is_one_line_and_exit_code_1") {
  const ScratchFolder folder;
  int status = 0;
  const std::string said = last_words(
      folder / "no" / "such", [](holdfast::Session& session) { session.restore(); }, status);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  CHECK(said.starts_with("holdfast: "));
  CHECK(lines_of(said) == 1);
  CHECK(lacking(said, {(folder / "no").string(), "such", "--holdfast.dir"}) == "");
}

TEST_CASE("a_forked_process_ends_without_a_report_to_the_ranks") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const holdfast::TellBeforeDeath tells(
        [&](const std::string& why) { (void)!::write(ends[1], why.data(), why.size()); });
    const pid_t forked = ::fork();
    if (forked == 0) std::exit(0);
    ::waitpid(forked, nullptr, 0);
    (void)!::write(ends[1], "then ", 5);
    std::exit(0);
  }
  ::close(ends[1]);
  const std::string said = read_to_end(ends[0]);
  ::waitpid(child, nullptr, 0);
  CHECK(said.starts_with("then "));
  CHECK(lacking(said, {"exit()", "session.finish()"}) == "");
}

TEST_CASE("a_handler_of_process_death_outlives_its_call") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::atomic<bool> called = false;
    {
      std::string words = "it was there";
      const holdfast::TellBeforeDeath tells([&](const std::string&) {
        called = true;
        ::usleep(300000);
        (void)!::write(ends[1], words.data(), words.size());
      });
      std::thread([] { std::exit(0); }).detach();
      while (!called) ::usleep(1000);
      // The scope ends while another thread is still in a call.
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  CHECK(read_to_end(ends[0]) == "it was there");
  ::waitpid(child, nullptr, 0);
}

TEST_CASE("a_libtorch_error_is_printed_without_its_backtrace_unless_requested") {
  const ScratchFolder folder;
  const auto body = [](holdfast::Session&) { torch::ones({2, 3}).view({5}); };
  int status = 0;
  ::unsetenv("TORCH_SHOW_CPP_STACKTRACES");
  const std::string words = last_words(folder.path(), body, status);
  CHECK(words.starts_with("holdfast: shape '[5]' is invalid for input of size 6\n"));
  CHECK(lines_of(words) == 2);
  CHECK(lacking(words, {"TORCH_SHOW_CPP_STACKTRACES=1"}) == "");
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
  ::setenv("TORCH_SHOW_CPP_STACKTRACES", "1", 1);
  const std::string all = last_words(folder.path(), body, status);
  CHECK(all.find("frame #0") != std::string::npos);
  CHECK(all.find("(set TORCH_SHOW") == std::string::npos);
  ::unsetenv("TORCH_SHOW_CPP_STACKTRACES");
}

TEST_CASE("a_libtorch_error_right_after_a_resume_is_printed_without_its_backtrace") {
  const ScratchFolder folder;
  ::unsetenv("TORCH_SHOW_CPP_STACKTRACES");
  const auto steps = [](std::uint64_t count, std::uint64_t fails_at) {
    return [count, fails_at](holdfast::Session& session) {
      std::uint64_t done = 0;
      session.track("done", done);
      for (auto& step : session.steps({.count = count})) {
        if (step.number() == fails_at) torch::ones({2, 3}).view({5});
        ++done;
      }
      session.finish();
    };
  };
  int status = 0;
  last_words(folder.path(), steps(1, 0), status);
  REQUIRE(WIFEXITED(status));
  const std::string said = last_words(folder.path(), steps(2, 2), status);
  CAPTURE(said);
  CHECK(said.find("resumed version") != std::string::npos);
  CHECK(said.find("holdfast: shape '[5]' is invalid for input of size 6\n(set TORCH_SHOW") != std::string::npos);
  CHECK(said.find("frame #0") == std::string::npos);
  CHECK(WTERMSIG(status) == SIGABRT);
}
