// Time stands still in this program while a model runs: the same operations must write the same bytes, or "distinct
// images" would count the ticks of the clock. A program's own definition takes the place of the C library's.
#include "clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace holdfast::storage::crash {
namespace {
std::atomic<int> stopped{0};
}
StoppedClock::StoppedClock() { ++stopped; }
StoppedClock::~StoppedClock() { --stopped; }
}  // namespace holdfast::storage::crash

extern "C" int clock_gettime(clockid_t clock, struct timespec* now) noexcept {
  if (holdfast::storage::crash::stopped > 0) {
    now->tv_sec = 1'800'000'000;
    now->tv_nsec = 0;
    return 0;
  }
  return static_cast<int>(syscall(SYS_clock_gettime, clock, now));
}
