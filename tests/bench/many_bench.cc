// A model of many small parameters under Adam: what a save and a load cost in addition to their bytes. For comparison:
// torch::save and torch::load of the module and the optimizer, into two files of the same folder, with an fsync.
//
//   many_bench [FOLDER [PARAMETERS [ROUNDS [alone]]]]        (alone: without the peer, for a profiler)
//
// Prints medians, minima and maxima in seconds, and the ratio of the peer's time to Holdfast's, round by round.
#include <fcntl.h>
#include <fmt/format.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "state/run_state.h"

using namespace holdfast;

namespace {

double timed(const std::function<void()>& act) {
  const auto begin = std::chrono::steady_clock::now();
  act();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);
  ::close(fd);
}

struct Program {
  explicit Program(int count) {
    std::vector<torch::Tensor> parameters;
    for (int i = 0; i < count; ++i) {
      const std::string name = "block" + std::to_string(i) + "_weight";
      parameters.push_back(module->register_parameter(name, torch::randn({4})));
    }
    optimizer = std::make_unique<torch::optim::Adam>(parameters, 0.01);
    state.track("net", module).track("optimizer", optimizer);
    state.begin();
  }
  void step() {
    for (auto& parameter : module->parameters()) parameter.mutable_grad() = torch::ones({4});
    optimizer->step();
  }

  std::shared_ptr<torch::nn::Module> module = std::make_shared<torch::nn::Module>();
  std::unique_ptr<torch::optim::Adam> optimizer;
  RunState state;
};

}  // namespace

int main(int argc, char** argv) {
  std::string folder = argc > 1 ? argv[1] : "/tmp";
  const int count = argc > 2 ? std::atoi(argv[2]) : 20000;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  const bool is_alone = argc > 4;
  folder += "/holdfast-many-" + std::to_string(::getpid());
  boost::filesystem::create_directories(folder);

  Program program(count), loaded(count);
  program.step();
  const auto store = storage::open_file_store(folder + "/run");
  storage::OpenRequest request;
  request.run = "bench";
  request.session = storage::random_session_id();
  request.fresh = true;
  const auto writer = holdfast::detail::value_of(storage::RunWriter::open(*store, request));
  storage::Uid newest;

  const std::string net = folder + "/net.pt", optimizer = folder + "/optimizer.pt";
  std::map<std::string, std::vector<double>> times;
  for (int round = 0; round <= rounds; ++round) {  // the first one warms up
    const auto note = [&](const std::string& what, const std::function<void()>& act) {
      const double seconds = timed(act);
      if (round > 0) times[what].push_back(seconds);
    };
    note("save", [&] {
      Snapshot captured;
      note("  capture", [&] { captured = program.state.capture(); });
      storage::SaveRequest save;
      save.values = std::move(captured.values);
      save.tensors = std::move(captured.tensors);
      note("  write", [&] { newest = holdfast::detail::value_of(writer->save(std::move(save))).uid; });
    });
    note("load", [&] {
      std::optional<storage::VersionReader> version;
      note("  open", [&] { version = holdfast::detail::value_of(storage::VersionReader::open(*store, newest)); });
      note("  restore", [&] { loaded.state.restore(*version); });
    });
    if (is_alone) continue;
    note("torch::save", [&] {
      torch::save(program.module, net);
      torch::save(*program.optimizer, optimizer);
      for (const auto& path : {net, optimizer, folder}) sync(path);
    });
    note("torch::load", [&] {
      torch::load(loaded.module, net);
      torch::load(*loaded.optimizer, optimizer);
    });
  }
  fmt::print("{} parameters of 4 numbers under Adam, {} rounds\n", count, rounds);
  for (auto& [what, all] : times) {
    std::vector<double> sorted = all;
    std::sort(sorted.begin(), sorted.end());
    fmt::print("{:14} {:7.3f} s ({:.3f} to {:.3f})\n", what, sorted[sorted.size() / 2], sorted.front(), sorted.back());
  }
  for (const auto& [peer, own] : {std::pair("torch::save", "save"), std::pair("torch::load", "load")}) {
    if (is_alone) continue;
    std::vector<double> ratios;
    for (int i = 0; i < rounds; ++i) {
      ratios.push_back(times[peer][static_cast<std::size_t>(i)] / times[own][static_cast<std::size_t>(i)]);
    }
    std::sort(ratios.begin(), ratios.end());
    fmt::print("{} / {}: {:.2f} ({:.2f} to {:.2f})\n", peer, own, ratios[ratios.size() / 2], ratios.front(),
               ratios.back());
  }
  boost::filesystem::remove_all(folder);
  return 0;
}
