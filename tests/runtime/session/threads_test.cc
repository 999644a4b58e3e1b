// How many threads a resumed run computes with.
#include <ATen/Parallel.h>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

TEST_CASE("the_users_omp_num_threads_overrides_the_threads_of_the_version") {
  const ScratchFolder folder;
  // `user`: OMP_NUM_THREADS was set by the user, not by launch.
  const auto said = [&](std::uint64_t steps, int threads, bool user) {
    const auto ended = ranks::run_sessions(1, [&, steps, threads, user]() -> int {
      if (user) ::unsetenv("HOLDFAST_LAUNCH_THREADS");
      at::set_num_threads(threads);  // LibTorch read the variable when this process started
      std::string words[] = {"train", "--holdfast.dir=" + folder.path().string()};
      char* argv[] = {words[0].data(), words[1].data(), nullptr};
      int argc = 2;
      auto session = holdfast::Session::start(argc, argv, {.run = "run", .every = "never", .device = "cpu"});
      std::uint64_t done = 0;
      session.track("done", done);
      for (auto& step : session.steps({.count = steps})) done = step.number();
      std::printf("with %d threads\n", at::get_num_threads());
      return session.finish();
    });
    return ended[0].text;
  };
  CHECK(said(1, 3, false).find("with 3 threads") != std::string::npos);
  CHECK(said(2, 2, false).find("with 3 threads") != std::string::npos);
  const std::string user = said(3, 2, true);
  CAPTURE(user);
  CHECK(user.find("with 2 threads") != std::string::npos);
  CHECK(has_line(user, {"2 threads", "OMP_NUM_THREADS", "--holdfast.threads 3"}));
}
