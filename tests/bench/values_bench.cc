// How long it takes to save a replay buffer and to load it again, as tracked structs or packed into tensors by hand:
//   values_bench structs|packed save|load ENTRIES FOLDER      prints seconds
// An entry is 2 x 27 floats, 9 integers and three scalars. values_bench.py compares.
#include <torch/torch.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "holdfast/holdfast.h"

namespace {

struct Entry {
  std::array<float, 27> seen{}, next{};
  std::array<std::int64_t, 9> legal{};
  std::int64_t action = 0;
  double reward = 0;
  bool is_done = false;

  template <class Archive>
  void holdfast_state(Archive& a) {
    a("seen", seen)("next", next)("legal", legal)("action", action)("reward", reward)("is_done", is_done);
  }
};

std::vector<Entry> make_entries(std::size_t count) {
  std::vector<Entry> entries(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto x = static_cast<float>(i);
    entries[i].seen.fill(x * 0.37F);
    entries[i].next.fill(x * 0.11F);
    entries[i].legal.fill(static_cast<std::int64_t>(i));
    entries[i].reward = 1.0 / (1.0 + x);
  }
  return entries;
}

struct Packed {
  torch::Tensor seen, next, legal, action, reward, is_done;

  void pack(const std::vector<Entry>& entries) {
    const auto n = static_cast<std::int64_t>(entries.size());
    seen = torch::empty({n, 27}), next = torch::empty({n, 27});
    legal = torch::empty({n, 9}, torch::kLong), action = torch::empty({n}, torch::kLong);
    reward = torch::empty({n}, torch::kDouble), is_done = torch::empty({n}, torch::kBool);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      std::copy(entries[i].seen.begin(), entries[i].seen.end(), seen.data_ptr<float>() + i * 27);
      std::copy(entries[i].next.begin(), entries[i].next.end(), next.data_ptr<float>() + i * 27);
      std::copy(entries[i].legal.begin(), entries[i].legal.end(), legal.data_ptr<std::int64_t>() + i * 9);
      action.data_ptr<std::int64_t>()[i] = entries[i].action;
      reward.data_ptr<double>()[i] = entries[i].reward;
      is_done.data_ptr<bool>()[i] = entries[i].is_done;
    }
  }
  void track(holdfast::Session& session) {
    session.track("seen", seen).track("next", next).track("legal", legal);
    session.track("action", action).track("reward", reward).track("is_done", is_done);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  using Clock = std::chrono::steady_clock;
  const bool in_structs = std::string(argv[1]) == "structs", saves = std::string(argv[2]) == "save";
  std::vector<Entry> entries;
  Packed packed;
  int none = 1;
  auto session = holdfast::Session::start(none, argv, {.dir = argv[4], .run = argv[1]});
  double value = 0;
  session.track("value", value);
  if (in_structs) {
    session.track("replay", entries);
  } else {
    packed.pack(entries);
    packed.track(session);
  }
  auto begin = Clock::now();
  session.restore();
  if (saves) {
    entries = make_entries(std::strtoull(argv[3], nullptr, 10));
    begin = Clock::now();
    if (!in_structs) packed.pack(entries);
    session.save_now();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::printf("%.4f\n", seconds);
  return session.finish();
}
