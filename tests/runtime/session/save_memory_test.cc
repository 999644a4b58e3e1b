// How much memory a save needs in addition to the state that it saves, as measured by the kernel.
#include <torch/torch.h>

#include <fstream>
#include <string>

#include "catch.h"
#include "holdfast/runtime/session/session.h"
#include "storage/scratch_folder.h"

namespace {

/// The most memory this process has had since the last forget_peak(), in bytes (proc(5), VmHWM).
std::size_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) * 1024;
  }
  return 0;
}

/// False if the kernel does not permit it.
bool forget_peak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return clear.good();
}

}  // namespace

TEST_CASE("a_save_needs_less_than_64_mb_in_addition_to_the_state") {
  if (!forget_peak()) {
    WARN("skipped: /proc/self/clear_refs cannot be written here");
    return;
  }
  const ScratchFolder folder;
  char name[] = "program";
  char* argv[] = {name, nullptr};
  int argc = 1;
  auto session = holdfast::Session::start(
      argc, argv, {.dir = folder.path().string(), .run = "run", .every = "never", .device = "cpu"});
  // Strided and whole, half and full precision: all kinds of data that are staged on the way to the file.
  torch::Tensor whole = torch::ones({32 << 20}), half = torch::ones({64 << 20}, torch::kHalf);
  torch::Tensor strided = torch::ones({4096, 8192}).t();
  session.track("whole", whole).track("half", half).track("strided", strided);
  std::size_t before = 0;
  for (auto& step : session.steps({.count = 2})) {
    if (step.number() != 1) continue;
    session.save_now();  // finished when the loop asks for the second step
    REQUIRE(forget_peak());
    before = peak_memory();
  }
  CHECK(session.finish() == holdfast::kDone);
  CHECK(peak_memory() - before < std::size_t{64} << 20);
  CHECK(peak_memory() > before);  // so the kernel's count works
}
