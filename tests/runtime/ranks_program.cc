// A program of several ranks, for tests that start it with a launcher. Prints its place and the sum over the ranks.
// `ranks fail R`: rank R throws. `ranks last CODE`: the last rank ends with CODE.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "holdfast/runtime/ranks/group.h"
#include "ranks/group_control.h"

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const int number = argc > 2 ? std::atoi(argv[2]) : -1;
  try {
    const auto place = holdfast::read_rank_environment();
    holdfast::Group group(place, c10::kCPU, {.join_within = std::chrono::seconds(60)});
    try {
      const int sum = group.all_reduce(group.rank() + 1);
      if (what == "fail" && group.rank() == number) throw std::runtime_error("this rank was told to fail");
      group.barrier();
      std::printf("rank %d of %d, local %d, by %s: sum %d\n", group.rank(), group.world_size(), group.local_rank(),
                  place.launcher.c_str(), sum);
      holdfast::detail::GroupControl(group).close();
    } catch (const std::exception& error) {
      holdfast::detail::GroupControl control(group);
      if (!control.fault()) control.fail("rank " + std::to_string(group.rank()) + " threw: " + error.what());
      throw;
    }
    return what == "last" && place.rank == place.world_size - 1 ? number : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
