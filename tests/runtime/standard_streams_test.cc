// A program whose standard streams the caller closed: what it prints must never end up in a version's file.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"
#include "holdfast/runtime/session.h"

TEST_CASE("no_file_of_a_session_takes_the_number_of_a_standard_stream_that_was_closed") {
  const pid_t child = ::fork();
  if (child == 0) {
    []() noexcept {  // an exception must not take the child on to the other tests
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
