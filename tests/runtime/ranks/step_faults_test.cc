// Faults in the middle of training steps whose only collectives are the Reducer's: every rank stops within seconds and
// names the rank, the operation and its place in the program.
#include <fmt/format.h>
#include <torch/torch.h>

#include <iostream>

#include "holdfast/holdfast.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;

struct Faulty : torch::autograd::Function<Faulty> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, torch::Tensor x, torch::Tensor act) {
    acts = act.item<int>();
    return x.clone();
  }
  // In the middle of backward: the gradients of the layers after it are already being exchanged.
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*,
                                               torch::autograd::tensor_list gradients) {
    if (acts == 1) ::kill(::getpid(), SIGKILL);
    if (acts == 2) throw std::runtime_error("backward met a NaN");
    if (acts == 3) ::raise(SIGSTOP);
    if (acts == 4) std::_Exit(3);
    if (acts == 5) ::usleep(6000000);
    return {gradients[0], torch::Tensor()};
  }
  static int acts;  // process-wide, because on a GPU another thread runs backward
};
int Faulty::acts = 0;

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(torch::Tensor x, int act) {
    x = torch::relu(one->forward(x));
    x = Faulty::apply(x, torch::tensor(act));
    return act == 15 ? x.narrow(1, 0, 4) : two->forward(x);
  }
  torch::nn::Linear one{register_module("one", torch::nn::Linear(32, 64))};
  torch::nn::Linear two{register_module("two", torch::nn::Linear(64, 4))};
};
TORCH_MODULE(Net);

// Trains. At step 10, rank `culprit` does `act` in its backward, leaves out a step, or diverges.
int train(const storage::Path& folder, const std::string& run, int act, int culprit, const char* device) {
  std::string program = "test", dir = "--holdfast.dir=" + folder.string();
  char* arguments[] = {program.data(), dir.data(), nullptr};
  char** argv = arguments;
  int argc = 2;
  auto session = Session::start(argc, argv, {.run = run, .seed = 5, .every = "never", .device = device, .threads = 1});
  Net net;
  net->to(session.device());
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01));
  auto pipeline = session.pipeline(net, optimizer, {Ddp({.bucket_bytes = 512, .first_bucket_bytes = 64})});
  for (auto& step : session.steps({.count = 60})) {
    const bool now = session.rank() == culprit && step.number() == 10;
    if (act != 0 && step.number() == 10) ranks::note_fact();
    if (now && act == 10) continue;           // one step less
    if (now && act == 11) session.barrier();  // a call that the others do not make
    if (now && act == 12) break;              // leaves the loop
    if (now && act == 13) (void)session.sum(1);
    if (now && act == 14) throw std::runtime_error("no more data");
    pipeline.step(step, [&] {
      const bool of_all = act == 16 && step.number() >= 10;
      const auto inputs = torch::full({2, 32}, session.rank(), torch::TensorOptions(session.device()));
      return net->forward(inputs.to(torch::kFloat), now ? act : of_all ? 15 : 0).square().mean();
    });
  }
  return session.finish();
}

struct StepFault {
  const char* name;
  int act;
  std::vector<std::string> words;  // printed by every rank that can print; {} is the culprit
  bool speaks = true;              // whether the culprit prints it too
};

const std::vector<StepFault> kStepFaults = {
    {"SIGKILL in backward", 1, {"rank {} ", "its process ended; ", "in backward at step_faults_test.cc:"}, false},
    {"throw in backward", 2, {"rank {} failed in backward at step_faults_test.cc:", "backward met a NaN"}, false},
    {"SIGSTOP in backward", 3, {"rank {} ", "has sent no heartbeat", "in backward at step_faults_test.cc:"}, false},
    {"_Exit in backward", 4, {"rank {} ", "its process ended; ", "in backward at step_faults_test.cc:"}, false},
    {"a step less", 10, {"rank {} ", "step_faults_test.cc:", "backward"}},
    {"another call", 11, {"rank {} ", "barrier at step_faults_test.cc:", "backward at step_faults_test.cc:"}},
    {"left the loop", 12, {"rank {} ", "step_faults_test.cc:", "backward at step_faults_test.cc:"}},
    {"another sum", 13, {"rank {} ", "at step_faults_test.cc:", "backward at step_faults_test.cc:"}},
    {"throw between steps",
     14,
     {"rank {} failed: no more data; it was last in backward at step_faults_test.cc:", " was in backward at "},
     false},
    {"a parameter unused on one rank", 15, {"two.weight, two.bias", ".find_unused = true"}, false},
    {"a parameter unused on all ranks", 16, {"two.weight, two.bias", ".find_unused = true"}, false},
};

void every_rank_stops_after_each_fault(int count, int culprit, const char* device, std::chrono::seconds patience) {
  const ScratchFolder folder;
  for (const StepFault& fault : kStepFaults) {
    INFO(fault.name);
    const auto ended = ranks::run_sessions(
        count, [&] { return train(folder.path(), fmt::format("run{}", fault.act), fault.act, culprit, device); },
        patience);
    double slowest = 0;
    for (int rank = 0; rank < count; ++rank) {
      const auto& end = ended[static_cast<std::size_t>(rank)];
      INFO("rank " << rank << " ended with " << end.code << " after " << end.seconds << " s and said: " << end.text);
      if (rank == culprit && !fault.speaks) continue;
      CHECK(end.code == 1);
      CHECK(end.seconds < (fault.act == 3 ? 8 : 5));  // silence is detected only after three seconds
      slowest = std::max(slowest, end.seconds);
      for (const std::string& word : fault.words) {
        CHECK(end.text.find(fmt::format(fmt::runtime(word), culprit)) != std::string::npos);
      }
    }
    std::cout << "fault: " << fault.name << ", all ranks over after seconds=" << slowest << "\n";
  }
}

}  // namespace

TEST_CASE("faults_inside_a_backward_pass_stop_every_rank_with_the_reason", "[full][alone]") {
  every_rank_stops_after_each_fault(4, 2, "cpu", std::chrono::seconds(9));
}

// The gradients travel by NCCL, whose kernels end only by an abort.
TEST_CASE("faults_inside_nccl_stop_every_rank_with_the_reason", "[gpu][alone]") {
  if (ranks::are_on_two_gpus()) every_rank_stops_after_each_fault(2, 1, "cuda", std::chrono::seconds(40));
}

// For example while a virtual machine moves to another host, or a page is read from a sleeping disk.
TEST_CASE("a_rank_that_hung_for_less_than_the_silence_limit_continues", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(
      3,
      [&] {
        ::unsetenv("HOLDFAST_SILENCE");  // use its default
        return train(folder.path(), "frozen", 3, 1, "cpu");
      },
      std::chrono::seconds(60),
      [](const std::vector<pid_t>& pids) {
        while (ranks::fact() == 0) ::usleep(1000);
        ::sleep(6);
        for (const pid_t pid : pids) ::kill(pid, SIGCONT);
      });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_slow_backward_pass_is_not_a_fault", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(
      4, [&] { return train(folder.path(), "slow", 5, 2, "cpu"); }, std::chrono::seconds(40));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("ten_thousand_steps_raise_no_false_alarm", "[long][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(
      4,
      [&]() -> int {
        std::string program = "test", dir = "--holdfast.dir=" + folder.path().string();
        char* arguments[] = {program.data(), dir.data(), nullptr};
        char** argv = arguments;
        int argc = 2;
        auto session =
            Session::start(argc, argv, {.run = "quiet", .seed = 5, .every = "1000", .device = "cpu", .threads = 1});
        Net net;
        torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.001));
        auto pipeline = session.pipeline(net, optimizer, {Ddp(), Accumulate(2)});
        for (auto& step : session.steps({.count = 10000})) {
          pipeline.step(step, [&] { return net->forward(torch::ones({2, 32}), 0).square().mean(); });
          if (step.number() % 100 == 0) (void)session.sum(step.number());
          if (step.number() == 5000 && session.rank() == 1) ::sleep(5);  // slow once
        }
        std::printf("steps %llu\n", static_cast<unsigned long long>(session.step()));
        return session.finish();
      },
      std::chrono::seconds(400));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    CHECK(rank.text.find("steps 10000") != std::string::npos);
  }
}
