// A class that names its members once is saved and loaded completely, including modules and optimizers in it.
#include <torch/torch.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tracked_run.h"

using holdfast::RunState;
using holdfast::State;

namespace {

torch::nn::Linear seeded(unsigned seed, int hidden) {
  torch::manual_seed(seed);
  return torch::nn::Linear(2, hidden);
}

class Trainer {
 public:
  explicit Trainer(unsigned seed, int hidden = 3) : net_(seeded(seed, hidden)), engine_(seed) {}

  void step() {
    const auto data = torch::full({4, 2}, std::uniform_real_distribution<>()(engine_));
    optimizer_->zero_grad();
    const auto loss = (net_->forward(data) * scale_).pow(2).mean();
    loss.backward();
    optimizer_->step();
    scheduler_->step();
    losses_.push_back(loss.item<double>());
    last_ = loss.detach();
    best_ = std::min(best_, losses_.back());
  }

  torch::nn::Linear net_;
  torch::Tensor scale_ = torch::ones({1}, torch::requires_grad());
  std::unique_ptr<torch::optim::Adam> optimizer_ =
      std::make_unique<torch::optim::Adam>(std::vector<torch::Tensor>{net_->weight, net_->bias, scale_}, 0.05);
  std::unique_ptr<torch::optim::StepLR> scheduler_ = std::make_unique<torch::optim::StepLR>(*optimizer_, 2, 0.5);
  std::mt19937 engine_;
  std::vector<double> losses_;
  torch::Tensor last_;
  double best_ = 1e9;

 private:
  friend struct holdfast::StateMembers;
  template <class Archive>
  void holdfast_state(Archive& a) {
    a("net", net_)("scale", scale_)("optimizer", optimizer_)("scheduler", scheduler_)("engine", engine_);
    a("losses", losses_)("last", last_)("best", best_);
  }
};

bool is_same(const Trainer& a, const Trainer& b) {
  return a.net_->weight.equal(b.net_->weight) && a.scale_.equal(b.scale_) && a.losses_ == b.losses_ &&
         a.engine_ == b.engine_ && a.best_ == b.best_ &&
         a.optimizer_->param_groups()[0].options().get_lr() == b.optimizer_->param_groups()[0].options().get_lr();
}

}  // namespace

TEST_CASE("a_class_that_names_its_members_resumes_exactly") {
  static_assert(holdfast::detail::HasMembers<Trainer>);
  Trainer whole(1), stopped(1), resumed(2);
  TrackedRun run;
  RunState saved, loaded;
  saved.track("trainer", stopped);
  saved.begin();
  for (int i = 0; i < 8; ++i) whole.step();
  for (int i = 0; i < 5; ++i) stopped.step();
  run.save(saved);
  loaded.track("trainer", resumed);
  CHECK(loaded.without_optimizer().empty());
  loaded.restore(run.newest());
  for (int i = 0; i < 3; ++i) resumed.step();
  CHECK(is_same(resumed, whole));
  CHECK(resumed.last_.equal(whole.last_));
  CHECK(run.newest().manifest().find("trainer.optimizer.state.trainer.net.weight.exp_avg") != nullptr);
}

TEST_CASE("a_vector_of_agents_with_nets_and_optimizers_resumes_exactly") {
  auto make = [](unsigned seed) {
    std::vector<std::unique_ptr<Trainer>> agents;
    for (int i = 0; i < 3; ++i) {
      agents.push_back(std::make_unique<Trainer>(seed + static_cast<unsigned>(i), 2 + i));
    }
    return agents;
  };
  auto whole = make(1), stopped = make(1), resumed = make(9);
  auto train = [](auto& agents, int steps) {
    for (int i = 0; i < steps; ++i) {
      for (auto& agent : agents) agent->step();
    }
  };
  TrackedRun run;
  RunState saved, loaded;
  saved.track("agents", stopped);
  saved.begin();
  train(whole, 6);
  train(stopped, 4);
  run.save(saved);
  loaded.track("agents", resumed);
  loaded.restore(run.newest());
  train(resumed, 2);
  for (int i = 0; i < 3; ++i) CHECK(is_same(*resumed.at(i), *whole.at(i)));

  auto fewer = make(1);
  fewer.pop_back();
  RunState other;
  other.track("agents", fewer);
  CHECK_THAT(error_of([&] { other.restore(run.newest()); }), ContainsSubstring("agents.2.net.weight"));
}

TEST_CASE("parts_of_a_vector_that_grew_are_found_again") {
  std::vector<torch::nn::Linear> nets;
  nets.emplace_back(torch::nn::Linear(2, 2));
  RunState state;
  state.track("nets", nets);
  (void)state.capture();
  for (int i = 0; i < 100; ++i) nets.emplace_back(torch::nn::Linear(2, 2));  // moves them
  const auto captured = state.capture();
  const std::size_t generators = RunState().capture().tensors.size();  // the CPU's and each GPU's
  CHECK(captured.tensors.size() == 2 * 101 + generators);
  nets.resize(1, nullptr);
  CHECK(state.capture().tensors.size() == 2 + generators);
}

namespace {

/// A typical class with its own save() and load().
struct Wrapped {
  torch::nn::Linear net{2, 1};
  torch::optim::SGD optimizer{net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9)};
  std::vector<torch::Tensor> averages;
  double loaded_weight = 0;
  void save(State& state) const {
    state.put("net", net).put("optimizer", optimizer).put("averages", averages).put("kind", "wrapped");
  }
  void load(const State& state) {
    CHECK(state.has("net"));
    state.get_to("net", net);
    state.get_to("optimizer", optimizer);
    state.get_to("averages", averages);
    CHECK(state.get<std::string>("kind") == "wrapped");
    loaded_weight = net->weight[0][0].item<double>();
  }
};

}  // namespace

TEST_CASE("save_and_load_take_everything_that_can_be_tracked") {
  Wrapped from, to;
  from.net->forward(torch::ones({1, 2})).sum().backward();
  from.optimizer.step();
  from.averages = {from.net->weight.detach().clone(), torch::ones({3})};
  TrackedRun run;
  RunState saved, loaded;
  saved.track("wrapped", from);
  run.save(saved);
  loaded.track("wrapped", to);
  loaded.restore(run.newest());
  CHECK(to.net->weight.equal(from.net->weight));
  CHECK(to.averages.at(0).equal(from.averages.at(0)));
  CHECK(to.loaded_weight == from.net->weight[0][0].item<double>());  // load() saw the restored parts
  const auto& state =
      static_cast<torch::optim::SGDParamState&>(*to.optimizer.state().at(to.net->weight.unsafeGetTensorImpl()));
  CHECK(state.momentum_buffer().equal(torch::ones_like(state.momentum_buffer())));
}

TEST_CASE("each_saved_part_of_an_object_needs_a_name") {
  struct Nameless {
    double x = 1;
    void save(State& state) const { state.put("", x); }
    void load(const State& state) { state.get_to("", x); }
  } nameless;
  RunState state;
  state.track("nameless", nameless);
  CHECK_THAT(error_of([&] { (void)state.capture(); }), ContainsSubstring("under an empty name"));
}

TEST_CASE("a_part_is_untracked_with_its_object") {
  Trainer trainer(1);
  RunState state;
  state.track("trainer", trainer);
  (void)state.capture();
  CHECK_THAT(error_of([&] { state.untrack("trainer.net"); }), ContainsSubstring("part of 'trainer'"));
  state.untrack("trainer");
  CHECK(state.capture().tensors.size() == RunState().capture().tensors.size());  // those of the generators
  CHECK_FALSE(state.tracks("trainer.net"));
}
