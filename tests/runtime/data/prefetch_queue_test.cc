#include "data/prefetch_queue.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "catch.h"
#include "holdfast/runtime/error.h"

TEST_CASE("a_worker_thread_that_cannot_start_is_an_error_and_ends_the_others") {
  const pid_t child = ::fork();
  if (child == 0) {
    // Address space for one more thread's stack, but not for two.
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    constexpr std::size_t kStack = std::size_t{512} << 20;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStack);
    pthread_setattr_default_np(&attributes);
    const std::size_t most = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + kStack + kStack / 2;
    const rlimit limit{most, most};
    ::setrlimit(RLIMIT_AS, &limit);
    int code = 1;
    try {
      const holdfast::PrefetchQueue queue(4);
    } catch (const holdfast::Error& error) {
      code = std::string(error.what()).find("worker 2 of 4") != std::string::npos ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
