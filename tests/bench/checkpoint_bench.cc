// Holdfast's side of checkpoint_bench.py: keeps a module of the requested size and executes one command a line,
// answering with seconds. Commands: save | load (verifies digests) | load-unchecked | raw (O_DIRECT write of the same
// number of bytes) | drop (the page cache's copy of the version) | check (the module holds what was saved) | quit.
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "state/run_state.h"

using namespace holdfast;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// The lower bound: aligned 8 MiB writes into reserved space, one sync.
double raw_write(const std::string& path, std::uint64_t bytes) {
  constexpr std::size_t kBlock = std::size_t{8} << 20;
  static void* block = [] {
    void* memory = std::aligned_alloc(4096, kBlock);
    std::memset(memory, 7, kBlock);
    return memory;
  }();
  const auto begin = Clock::now();
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT, 0644);
  if (fd < 0 || ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) return -1;
  for (std::uint64_t at = 0; at < bytes; at += kBlock) {
    if (::pwrite(fd, block, kBlock, static_cast<off_t>(at)) != static_cast<ssize_t>(kBlock)) return -1;
  }
  ::fsync(fd);
  ::close(fd);
  const double took = seconds_since(begin);
  ::unlink(path.c_str());
  return took;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: checkpoint_bench FOLDER TENSORS MIB_EACH\n");
    return 2;
  }
  const std::string folder = argv[1];
  const int tensors = std::atoi(argv[2]);
  const std::int64_t mib = std::atoll(argv[3]);
  const std::uint64_t total = static_cast<std::uint64_t>(tensors) * static_cast<std::uint64_t>(mib) << 20;

  torch::manual_seed(1);
  const auto module = std::make_shared<torch::nn::Module>();
  for (int i = 0; i < tensors; ++i) {
    module->register_parameter("p" + std::to_string(i), torch::randn({mib * 256, 1024}));
  }
  std::vector<double> sums;
  for (const auto& parameter : module->parameters()) sums.push_back(parameter.sum(torch::kDouble).item<double>());

  const auto store = storage::open_file_store(folder + "/holdfast");
  RunState state;
  state.track("net", *module);
  state.begin();
  storage::OpenRequest request;
  request.run = "bench";
  request.session = storage::random_session_id();
  request.fresh = true;
  const auto writer = holdfast::detail::value_of(storage::RunWriter::open(*store, request));
  storage::Uid newest;

  std::string command;
  while (std::getline(std::cin, command) && command != "quit") {
    double took = -1;
    if (command == "save") {
      const auto begin = Clock::now();
      Snapshot captured = state.capture();
      storage::SaveRequest save;
      save.values = captured.values;
      save.tensors = std::move(captured.tensors);
      newest = holdfast::detail::value_of(writer->save(save)).uid;
      took = seconds_since(begin);
      holdfast::detail::throw_if(writer->prune({.keep_last = 1}).status());
    } else if (command == "load" || command == "load-unchecked") {
      const auto begin = Clock::now();
      const auto version = holdfast::detail::value_of(storage::VersionReader::open(*store, newest));
      state.restore(version, {}, {.check_digests = command == "load"});
      took = seconds_since(begin);
    } else if (command == "raw") {
      took = raw_write(folder + "/raw", total);
    } else if (command == "drop") {
      for (const auto& name : holdfast::detail::value_of(store->list("data"))) {
        const int fd = ::open((folder + "/holdfast/" + name).c_str(), O_RDONLY);
        ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        ::close(fd);
      }
      took = 0;
    } else if (command == "scramble") {
      const torch::NoGradGuard no_grad;
      for (auto& parameter : module->parameters()) parameter.fill_(0.5);
      took = 0;
    } else if (command == "check") {
      const auto parameters = module->parameters();
      took = 0;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].sum(torch::kDouble).item<double>() != sums[i]) took = -1;
      }
    }
    std::cout << took << std::endl;
  }
  return 0;
}
