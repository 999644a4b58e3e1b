#include "holdfast/storage/process.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "catch.h"

using namespace holdfast::storage;

TEST_CASE("a_process_is_known_by_its_start_and_its_parent_until_it_was_waited_for") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[1]);
    ::prctl(PR_SET_NAME, "a) Z 1 (b", 0, 0, 0);  // a name that looks like other fields
    char byte = 0;
    ::_exit(static_cast<int>(::read(ends[0], &byte, 1)));
  }
  const auto self = read_process_stat(::getpid());
  REQUIRE(self.has_value());
  CHECK_FALSE(self->has_ended);
  CHECK(self->parent == ::getppid());

  for (int i = 0; i < 10000 && read_process_stat(child)->command != "a) Z 1 (b"; ++i) ::usleep(1000);
  CHECK(read_process_stat(child)->command == "a) Z 1 (b");
  const auto living = read_process_stat(child);
  CHECK_FALSE(living->has_ended);
  CHECK(living->parent == ::getpid());
  CHECK(std::stoull(living->start) >= std::stoull(self->start));

  ::close(ends[1]);
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  const auto ended = read_process_stat(child);
  REQUIRE(ended.has_value());
  CHECK(ended->has_ended);
  CHECK(ended->start == living->start);

  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK_FALSE(read_process_stat(child).has_value());
  ::close(ends[0]);
}

TEST_CASE("a_process_that_ends_during_the_query_is_gone") {
  // Each round can meet the moment between the open and the read of its file.
  for (int i = 0; i < 200; ++i) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    REQUIRE(child > 0);
    std::thread parent([&] { ::waitpid(child, nullptr, 0); });
    while (read_process_stat(child)) {
    }
    parent.join();
  }
}

TEST_CASE("processes_of_one_machine_share_a_pid_space") { CHECK_FALSE(pid_space().empty()); }
