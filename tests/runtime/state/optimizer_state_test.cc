// After a restore into new objects, every optimizer and scheduler of LibTorch continues as if it had never stopped:
// with the same losses and the same bytes.
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include "tracked_run.h"

using holdfast::RunState;
namespace optim = torch::optim;

namespace {

struct NetImpl : torch::nn::Module {
  NetImpl() {
    first = register_module("first", torch::nn::Linear(4, 8));
    norm = register_module("norm", torch::nn::BatchNorm1d(8));
    dropout = register_module("dropout", torch::nn::Dropout(0.3));
    last = register_module("last", torch::nn::Linear(8, 4));
    // Not used at first: optimizers have no state for it until it gets a gradient.
    idle = register_parameter("idle", torch::randn({3}));
    tied = register_parameter("tied", first->weight);
  }
  torch::Tensor forward(torch::Tensor x) {
    x = dropout(torch::relu(norm(first(x))));
    return last(x).matmul(tied.t());
  }
  torch::nn::Linear first{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout dropout{nullptr};
  torch::Tensor idle, tied;
};
TORCH_MODULE(Net);

using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(std::vector<torch::Tensor>)>;

/// A training program. It makes its own batches from LibTorch's generator.
struct Program {
  explicit Program(const MakeOptimizer& make, std::uint64_t seed = 0, bool reversed = false) {
    torch::manual_seed(seed);
    net = Net();
    auto parameters = net->parameters();
    if (reversed) std::reverse(parameters.begin(), parameters.end());
    optimizer = make(parameters);
    state.track("net", net).track("optimizer", *optimizer);
  }

  std::vector<float> steps(int count) {
    std::vector<float> losses;
    for (int i = 0; i < count; ++i) {
      const auto x = torch::randn({16, 4});
      const auto y = torch::randn({16, 8});
      const auto loss = optimizer->step([&] {
        optimizer->zero_grad();
        auto loss = torch::mse_loss(net->forward(x), y);
        loss.backward();
        return loss;
      });
      losses.push_back(loss.item<float>());
    }
    return losses;
  }

  Net net{nullptr};
  std::unique_ptr<optim::Optimizer> optimizer;
  RunState state;
};

template <class Optimizer, class Options>
MakeOptimizer make(Options options) {
  return [options](std::vector<torch::Tensor> parameters) {
    return std::make_unique<Optimizer>(std::move(parameters), options);
  };
}

const std::vector<std::pair<std::string, MakeOptimizer>>& optimizers() {
  static const std::vector<std::pair<std::string, MakeOptimizer>> all = {
      {"Adam", make<optim::Adam>(optim::AdamOptions(0.02).weight_decay(0.1))},
      {"Adam amsgrad", make<optim::Adam>(optim::AdamOptions(0.02).amsgrad(true))},
      {"AdamW", make<optim::AdamW>(optim::AdamWOptions(0.02))},
      {"AdamW amsgrad", make<optim::AdamW>(optim::AdamWOptions(0.02).amsgrad(true))},
      {"SGD", make<optim::SGD>(optim::SGDOptions(0.02))},
      {"SGD momentum", make<optim::SGD>(optim::SGDOptions(0.02).momentum(0.9).nesterov(true))},
      {"RMSprop", make<optim::RMSprop>(optim::RMSpropOptions(0.02))},
      {"RMSprop centered", make<optim::RMSprop>(optim::RMSpropOptions(0.02).momentum(0.5).centered(true))},
      {"Adagrad", make<optim::Adagrad>(optim::AdagradOptions(0.02).lr_decay(0.1))},
      {"LBFGS", make<optim::LBFGS>(optim::LBFGSOptions(0.1).max_iter(4).history_size(3))},
      {"LBFGS line search", make<optim::LBFGS>(optim::LBFGSOptions(0.5).max_iter(4).line_search_fn("strong_wolfe"))},
  };
  return all;
}

}  // namespace

TEST_CASE("every_optimizer_goes_on_as_if_it_had_never_stopped") {
  for (const auto& [name, make] : optimizers()) {
    DYNAMIC_SECTION(name) {
      Program uninterrupted(make);
      uninterrupted.steps(3);
      TrackedRun run;
      run.save(uninterrupted.state);
      const StateBytes at_save = bytes_of(uninterrupted.state);
      const auto losses = uninterrupted.steps(4);
      const StateBytes at_end = bytes_of(uninterrupted.state);
      REQUIRE(other_tensors(at_end, at_save) != kNone);

      // LBFGS keeps its only state under the first parameter.
      const bool reversed = dynamic_cast<optim::LBFGS*>(uninterrupted.optimizer.get()) == nullptr;
      for (const int steps_before : {0, 2}) {
        CAPTURE(steps_before);
        Program resumed(make, 7, reversed && steps_before == 0);
        resumed.steps(steps_before);
        resumed.state.restore(run.newest());
        if (!reversed || steps_before > 0) CHECK(other_parts(bytes_of(resumed.state), at_save) == kNone);
        CHECK(other_tensors(bytes_of(resumed.state), at_save) == kNone);
        CHECK(resumed.steps(4) == losses);
        CHECK(other_tensors(bytes_of(resumed.state), at_end) == kNone);
        CHECK(resumed.net->tied.is_same(resumed.net->named_parameters()["tied"]));
      }
    }
  }
}

TEST_CASE("state_from_before_the_first_step_replaces_later_state") {
  for (const auto& [name, make] : optimizers()) {
    DYNAMIC_SECTION(name) {
      Program fresh(make);
      TrackedRun run;
      run.save(fresh.state);
      const auto losses = fresh.steps(3);

      Program later(make, 7);
      later.steps(2);
      later.state.restore(run.newest());
      CHECK(later.steps(3) == losses);
      CHECK(other_parts(bytes_of(later.state), bytes_of(fresh.state)) == kNone);
    }
  }
}

TEST_CASE("the_same_state_gives_the_same_file") {
  const auto& make = optimizers().front().second;
  TrackedRun first, second;
  for (auto* run : {&first, &second}) {
    Program program(make);
    program.steps(3);
    run->save(program.state);
  }
  // The metadata contains the version, which is the same here.
  CHECK((first.payload() == second.payload()));
  CHECK(first.newest().manifest().values == second.newest().manifest().values);
}

namespace {

// Four parameters under Adam: two after three steps, one after one step, one that has had no gradient yet.
struct UnevenSteps {
  UnevenSteps() {
    for (const char* name : {"a", "b", "once", "never"}) net->register_parameter(name, torch::ones({2}));
    optimizer = std::make_unique<optim::Adam>(net->parameters(), optim::AdamOptions(0.1));
    state.track("net", net).track("optimizer", optimizer);
  }
  void step(const std::vector<std::string>& reached) {
    optimizer->zero_grad();
    for (const std::string& name : reached) net->named_parameters()[name].mutable_grad() = torch::ones({2});
    optimizer->step();
  }

  std::shared_ptr<torch::nn::Module> net = std::make_shared<torch::nn::Module>();
  std::unique_ptr<optim::Adam> optimizer;
  RunState state;
};

}  // namespace

TEST_CASE("what_all_parameters_states_have_alike_is_written_once_and_the_others_come_back") {
  UnevenSteps program;
  program.step({"a", "b"});
  program.step({"a", "b"});
  program.step({"a", "b", "once"});
  holdfast::Snapshot captured = program.state.capture();
  const nlohmann::json& written = captured.values.at("optimizer");
  CHECK(written.at("state_of_others") == nlohmann::json{{"step", 3}});
  CHECK(written.at("state") == nlohmann::json{{"net.once", {{"step", 1}}}, {"net.never", nullptr}});

  SECTION("as it is written") {}
  SECTION("where a version lists the state of every parameter") {
    nlohmann::json& optimizer = captured.values["optimizer"];
    for (const char* name : {"net.a", "net.b"}) optimizer["state"][name] = optimizer.at("state_of_others");
    optimizer["state"].erase("net.never");
    optimizer.erase("state_of_others");
  }
  TrackedRun run;
  run.save(std::move(captured));
  UnevenSteps resumed;
  resumed.state.restore(run.newest());
  CHECK(resumed.optimizer->state().size() == 3);
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  CHECK(bytes_of(resumed.state).values == bytes_of(program.state).values);
  for (UnevenSteps* one : {&program, &resumed}) one->step({"a", "b", "once", "never"});
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  CHECK(bytes_of(resumed.state).values == bytes_of(program.state).values);
}

TEST_CASE("state_keeps_the_memory_order_of_channels_last_parameters") {
  auto program = [](std::uint64_t seed) {
    torch::manual_seed(seed);
    torch::nn::Conv2d conv(torch::nn::Conv2dOptions(4, 6, 3));
    conv->weight.set_data(conv->weight.contiguous(at::MemoryFormat::ChannelsLast));
    return conv;
  };
  auto train = [](torch::nn::Conv2d conv, optim::Optimizer& optimizer) {
    for (int i = 0; i < 2; ++i) {
      optimizer.zero_grad();
      conv->forward(torch::randn({2, 4, 8, 8})).square().mean().backward();
      optimizer.step();
    }
  };
  auto conv = program(0);
  optim::AdamW optimizer(conv->parameters(), optim::AdamWOptions(0.1));
  RunState state;
  state.track("conv", conv).track("optimizer", optimizer);
  train(conv, optimizer);
  TrackedRun run;
  run.save(state);

  auto conv2 = program(1);
  optim::AdamW optimizer2(conv2->parameters(), optim::AdamWOptions(0.1));
  RunState state2;
  state2.track("conv", conv2).track("optimizer", optimizer2);
  state2.restore(run.newest());
  CHECK(other_parts(bytes_of(state2), bytes_of(state)) == kNone);
  const auto& restored =
      static_cast<optim::AdamWParamState&>(*optimizer2.state().at(conv2->weight.unsafeGetTensorImpl()));
  CHECK(restored.exp_avg().is_contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(conv2->weight.is_contiguous(at::MemoryFormat::ChannelsLast));
  train(conv, optimizer);
  torch::manual_seed(5);
  state2.restore(run.newest());
  train(conv2, optimizer2);
  CHECK(torch::equal(conv->weight, conv2->weight));
}

TEST_CASE("schedulers_go_on") {
  struct Scheduled : Program {
    explicit Scheduled(std::uint64_t seed)
        : Program(make<optim::SGD>(optim::SGDOptions(0.1)), seed),
          step_lr(*optimizer, 3, 0.5),
          plateau(*optimizer, optim::ReduceLROnPlateauScheduler::min, 0.5, 1, 1e-4,
                  optim::ReduceLROnPlateauScheduler::rel, 1) {
      state.track("step_lr", step_lr).track("plateau", plateau);
    }
    std::vector<double> rates(int count, float metric) {
      std::vector<double> rates;
      for (int i = 0; i < count; ++i) {
        step_lr.step();
        plateau.step(metric);
        rates.push_back(optimizer->param_groups()[0].options().get_lr());
      }
      return rates;
    }
    optim::StepLR step_lr;
    optim::ReduceLROnPlateauScheduler plateau;
  };
  Scheduled uninterrupted(0);
  TrackedRun at_start;
  at_start.save(uninterrupted.state);  // the best metric so far is infinite
  const auto all = uninterrupted.rates(4, 1.0f);
  TrackedRun run;
  run.save(uninterrupted.state);
  const auto rates = uninterrupted.rates(9, 1.0f);
  REQUIRE(rates.front() != rates.back());

  Scheduled resumed(1);
  resumed.state.restore(run.newest());
  CHECK(resumed.rates(9, 1.0f) == rates);
  resumed.state.restore(at_start.newest());
  CHECK(resumed.rates(4, 1.0f) == all);
}

TEST_CASE("a_schedulers_constants_that_differ_in_the_code_are_noted_and_the_codes_stay") {
  const auto program = [](double gamma, int patience) {
    auto made = std::make_unique<Program>(make<optim::SGD>(optim::SGDOptions(0.1)));
    auto step_lr = std::make_shared<optim::StepLR>(*made->optimizer, 3, gamma);
    auto plateau = std::make_shared<optim::ReduceLROnPlateauScheduler>(
        *made->optimizer, optim::ReduceLROnPlateauScheduler::min, 0.5, patience);
    made->state.track("step_lr", *step_lr).track("plateau", *plateau);
    return std::tuple(std::move(made), step_lr, plateau);
  };
  const auto [saved, step_lr, plateau] = program(0.5, 1);
  TrackedRun run;
  run.save(saved->state);
  const auto [same, step_lr2, plateau2] = program(0.5, 1);
  CHECK(same->state.restore(run.newest()).notes.empty());
  const auto [edited, step_lr3, plateau3] = program(0.9, 4);
  CHECK(edited->state.restore(run.newest()).notes ==
        std::vector<std::string>{"step_lr gamma: code says 0.9, checkpoint was made with 0.5: the code wins",
                                 "plateau patience: code says 4, checkpoint was made with 1: the code wins"});
  for (int i = 0; i < 4; ++i) step_lr3->step();
  CHECK(std::abs(edited->optimizer->param_groups()[0].options().get_lr() - 0.09) < 1e-12);

  auto captured = saved->state.capture();  // as saved before Holdfast stored constants
  captured.values["step_lr"].erase("constants");
  run.save(std::move(captured));
  CHECK(edited->state.restore(run.newest()).notes.size() == 1);
}

TEST_CASE("edited_options_win_over_saved_ones_and_unedited_ones_come_back") {
  auto program = [](double lr, double momentum) {
    return Program(make<optim::SGD>(optim::SGDOptions(lr).momentum(momentum)));
  };
  auto options = [](Program& program) -> optim::SGDOptions& {
    return static_cast<optim::SGDOptions&>(program.optimizer->param_groups()[0].options());
  };
  TrackedRun run;
  {
    auto first = program(0.01, 0.9);
    first.state.begin();
    first.steps(1);
    options(first).lr(0.005);  // as a schedule would
    run.save(first.state);
  }
  {
    auto same = program(0.01, 0.9);
    const auto restored = same.state.restore(run.newest());
    CHECK(restored.notes.empty());
    CHECK(options(same).lr() == 0.005);
    // A second restore, as after a corrupt version, does not mistake values of the first one for values of the code.
    CHECK(same.state.restore(run.newest()).notes.empty());
    CHECK(options(same).lr() == 0.005);
    // The initial value set by the code stays the initial value over any number of resumes.
    TrackedRun next;
    next.save(same.state);
    auto third = program(0.01, 0.9);
    CHECK(third.state.restore(next.newest()).notes.empty());
    CHECK(options(third).lr() == 0.005);
  }
  {
    auto edited = program(0.02, 0.9);
    const auto restored = edited.state.restore(run.newest());
    REQUIRE(restored.notes.size() == 1);
    CHECK(restored.notes[0] ==
          "optimizer group 0 lr: code says 0.02, checkpoint started with 0.01 and stood at 0.005: the code wins");
    CHECK(options(edited).lr() == 0.02);
    CHECK(options(edited).momentum() == 0.9);
  }
  {
    auto program_edits_late = program(0.01, 0.9);
    options(program_edits_late).lr(0.3);  // between track() and restore() the code still sets initial values
    program_edits_late.state.begin();
    TrackedRun late;
    late.save(program_edits_late.state);
    const auto value = late.newest().manifest().values.at("optimizer").at("groups").at(0);
    CHECK(value.at("initial").at("lr") == 0.3);
  }
}

namespace {

/// Four parameters, "net.a" to "net.d", and an optimizer with groups of them: {{"ab", 0.1}, {"c", 0.2}}.
struct GroupedProgram {
  using Groups = std::vector<std::pair<std::string, double>>;  // letters and learning rate

  explicit GroupedProgram(const Groups& groups) {
    for (const char letter : std::string("abcd")) {
      parameters[letter] = net->register_parameter(std::string(1, letter), torch::ones({2}) * letter);
    }
    state.track("net", net).track("optimizer", optimizer);
    make_optimizer(groups);
  }
  void make_optimizer(const Groups& groups) {
    std::vector<optim::OptimizerParamGroup> list;
    for (const auto& [letters, lr] : groups) list.push_back(group(letters, lr));
    optimizer = std::make_shared<optim::SGD>(std::move(list), optim::SGDOptions(1).momentum(0.9));
  }
  optim::OptimizerParamGroup group(const std::string& letters, double lr) {
    std::vector<torch::Tensor> tensors;
    for (const char letter : letters) tensors.push_back(parameters.at(letter));
    return {tensors, std::make_unique<optim::SGDOptions>(optim::SGDOptions(lr).momentum(0.9))};
  }
  void set_lr(std::size_t group, double lr) { optimizer->param_groups()[group].options().set_lr(lr); }
  void step() {
    optimizer->zero_grad();
    torch::Tensor sum = torch::zeros({1});
    for (const auto& [letter, parameter] : parameters) sum = sum + parameter.square().sum();
    sum.backward();
    optimizer->step();
  }
  Groups groups() const {
    Groups now;
    for (const auto& group : optimizer->param_groups()) {
      std::string letters;
      for (const auto& tensor : group.params()) {
        for (const auto& [letter, parameter] : parameters) {
          if (parameter.is_same(tensor)) letters += letter;
        }
      }
      now.emplace_back(letters, group.options().get_lr());
    }
    return now;
  }

  std::shared_ptr<torch::nn::Module> net = std::make_shared<torch::nn::Module>();
  std::map<char, torch::Tensor> parameters;
  std::shared_ptr<optim::SGD> optimizer = std::make_shared<optim::SGD>(std::vector{torch::ones({1})}, 1);
  RunState state;
};
using Groups = GroupedProgram::Groups;

/// A version of a program that started with `groups` and then changed.
template <class Change>
TrackedRun saved_after(const Groups& groups, const Change& change) {
  GroupedProgram program(groups);
  program.state.begin();
  program.step();
  change(program);
  program.step();
  TrackedRun run;
  run.save(program.state);
  return run;
}

}  // namespace

TEST_CASE("options_follow_their_parameters_where_groups_stand_in_another_order") {
  const TrackedRun run = saved_after({{"ab", 0.1}, {"cd", 0.1}}, [](GroupedProgram& program) {
    program.set_lr(0, 0);
    program.set_lr(1, 0.5);
  });
  GroupedProgram swapped({{"cd", 0.1}, {"ab", 0.1}});
  CHECK(swapped.state.restore(run.newest()).notes.empty());
  CHECK(swapped.groups() == Groups{{"cd", 0.5}, {"ab", 0}});

  const TrackedRun fewer = saved_after({{"b", 0.1}, {"cd", 0.1}}, [](GroupedProgram& program) {
    program.set_lr(0, 0);
    program.set_lr(1, 0.5);
  });
  GroupedProgram inserted({{"a", 0.1}, {"b", 0.1}, {"cd", 0.1}});
  const auto notes = inserted.state.restore(fewer.newest(), {.allow_missing = {"net.a"}, .allow_unexpected = {}}).notes;
  CHECK(inserted.groups() == Groups{{"a", 0.1}, {"b", 0}, {"cd", 0.5}});
  REQUIRE(notes.size() == 2);
  CHECK(notes[1] == "optimizer group 0 is not in the checkpoint: its options stay as the code gives them");
}

TEST_CASE("groups_that_changed_while_the_run_went_on_come_back") {
  const auto check = [](const Groups& began, const auto& change) {
    GroupedProgram program(began);
    program.state.begin();
    program.step();
    change(program);
    program.step();
    TrackedRun run;
    run.save(program.state);
    const Groups groups = program.groups();
    CHECK(groups != began);
    program.step();

    GroupedProgram resumed(began);
    CHECK(resumed.state.restore(run.newest()).notes.empty());
    CHECK(resumed.groups() == groups);
    TrackedRun next;
    next.save(resumed.state);
    CHECK(next.newest().manifest().values == run.newest().manifest().values);
    resumed.step();
    CHECK(other_parts(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
    // This also holds if the same process returns to an earlier version.
    GroupedProgram fresh(began);
    fresh.state.begin();
    TrackedRun start;
    start.save(fresh.state);
    CHECK(resumed.state.restore(start.newest()).notes.empty());
    CHECK(resumed.groups() == began);
    CHECK(other_parts(bytes_of(resumed.state), bytes_of(fresh.state)) == kNone);
  };
  SECTION("one joined") {
    check({{"ab", 0.1}},
          [](GroupedProgram& program) { program.optimizer->add_param_group(program.group("cd", 0.05)); });
  }
  SECTION("one joined and rates changed") {
    check({{"ab", 0.1}}, [](GroupedProgram& program) {
      program.optimizer->add_param_group(program.group("c", 0.05));
      program.set_lr(0, 0.3);
      program.set_lr(1, 0.4);
    });
  }
  SECTION("a parameter joined a group") {
    check({{"ab", 0.1}, {"c", 0.2}}, [](GroupedProgram& program) {
      program.optimizer->param_groups()[1].params().push_back(program.parameters['d']);
    });
  }
  SECTION("made a second time with fewer parameters") {
    check({{"ab", 0.1}, {"cd", 0.2}}, [](GroupedProgram& program) { program.make_optimizer({{"d", 0.3}}); });
  }
  SECTION("split, merged and reordered") {
    check({{"ab", 0.1}, {"cd", 0.2}}, [](GroupedProgram& program) {
      program.make_optimizer({{"bc", 0.3}, {"d", 0.2}, {"a", 0.1}});
    });
  }
}

TEST_CASE("a_group_that_joined_comes_back_beside_groups_that_somebody_edited") {
  const TrackedRun run = saved_after({{"a", 0.1}, {"b", 0.1}}, [](GroupedProgram& program) {
    program.optimizer->add_param_group(program.group("c", 0.05));
  });
  GroupedProgram edited({{"b", 0.1}, {"a", 0.1}});
  CHECK(edited.state.restore(run.newest()).notes.empty());
  CHECK(edited.groups() == Groups{{"b", 0.1}, {"a", 0.1}, {"c", 0.05}});
  // It is not added if the user allowed it to be missing, or if it was in the code's own groups.
  GroupedProgram without({{"b", 0.1}, {"a", 0.1}});
  CHECK(without.state.restore(run.newest(), {.allow_missing = {}, .allow_unexpected = {"net.c"}}).notes.size() == 1);
  CHECK(without.groups().size() == 2);
  const TrackedRun three = saved_after({{"a", 0.1}, {"b", 0.1}, {"c", 0.1}}, [](GroupedProgram&) {});
  GroupedProgram removed({{"a", 0.1}, {"b", 0.1}});
  CHECK_THAT(error_of([&] { removed.state.restore(three.newest()); }),
             Catch::Matchers::Contains("optimizer.state.net.c is in the checkpoint"));
}

TEST_CASE("a_split_or_merged_group_takes_its_parameters_options_where_they_agree") {
  const TrackedRun one = saved_after({{"abcd", 0.1}}, [](GroupedProgram& program) { program.set_lr(0, 0.05); });
  GroupedProgram split({{"ab", 0.1}, {"cd", 0.1}});
  CHECK(split.state.restore(one.newest()).notes.empty());
  CHECK(split.groups() == Groups{{"ab", 0.05}, {"cd", 0.05}});

  const TrackedRun two = saved_after({{"ab", 0.1}, {"cd", 0.1}}, [](GroupedProgram& program) {
    program.set_lr(0, 0.05);
    program.set_lr(1, 0.05);
  });
  GroupedProgram merged({{"abcd", 0.1}});
  CHECK(merged.state.restore(two.newest()).notes.empty());
  CHECK(merged.groups() == Groups{{"abcd", 0.05}});

  const TrackedRun other = saved_after({{"ab", 0.1}, {"cd", 0.1}}, [](GroupedProgram& program) {
    program.set_lr(0, 0.05);
    program.set_lr(1, 0.02);
  });
  GroupedProgram disagreeing({{"abcd", 0.1}});
  const auto notes = disagreeing.state.restore(other.newest()).notes;
  CHECK(disagreeing.groups() == Groups{{"abcd", 0.1}});
  REQUIRE(notes.size() == 1);
  CHECK(notes[0] ==
        "optimizer group 0 lr: its parameters had different values (0.05 for net.a, 0.02 for net.c): the group takes "
        "0.1");
}

namespace {

/// A program that, while it runs, makes its optimizer a second time with another rate, and its scheduler too.
struct RemakingProgram {
  RemakingProgram() : net(3, 2) {
    make_optimizer(0.1);
    state.track("net", net).track("optimizer", optimizer).track("scheduler", scheduler);
  }
  void make_optimizer(double lr) {
    optimizer = std::make_shared<optim::Adam>(net->parameters(), optim::AdamOptions(lr));
    scheduler = std::make_unique<optim::StepLR>(*optimizer, 3, 0.5);
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) {
      optimizer->zero_grad();
      net->forward(torch::ones({1, 3})).square().sum().backward();
      optimizer->step();
      scheduler->step();
    }
  }
  torch::nn::Linear net;
  std::shared_ptr<optim::Adam> optimizer;
  std::unique_ptr<optim::LRScheduler> scheduler;
  RunState state;
};

}  // namespace

TEST_CASE("an_optimizer_that_is_made_a_second_time_is_what_is_saved_and_goes_on") {
  RemakingProgram program;
  program.state.begin();
  program.steps(2);
  program.make_optimizer(0.01);
  program.steps(2);
  TrackedRun run;
  run.save(program.state);
  program.steps(5);

  RemakingProgram resumed;  // with the first rate
  CHECK(resumed.state.restore(run.newest()).notes.empty());
  CHECK(resumed.optimizer->param_groups()[0].options().get_lr() == 0.01);
  resumed.steps(5);
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
}

namespace {

struct OwnOptimizer : optim::SGD {
  using SGD::SGD;
};

struct SavedOptimizer : optim::SGD {
  using SGD::load;
  using SGD::save;
  using SGD::SGD;
  int hidden = 3;
  void save(holdfast::State& state) const { state.put("hidden", hidden); }
  void load(const holdfast::State& state) { state.get_to("hidden", hidden); }
};

}  // namespace

TEST_CASE("an_optimizer_that_cannot_be_saved_is_refused_with_its_name_when_a_save_is_due") {
  torch::nn::Linear net(2, 3), other(2, 3);
  std::unique_ptr<optim::Optimizer> optimizer = std::make_unique<optim::SGD>(net->parameters(), 0.1);
  RunState state;
  state.track("net", net).track("optimizer", optimizer);
  CHECK(state.tracks(*optimizer));
  state.begin();
  optimizer = std::make_unique<optim::SGD>(net->parameters(), 0.2);
  CHECK(state.capture().values.at("optimizer").at("groups")[0].at("current").at("lr") == 0.2);
  optimizer = std::make_unique<optim::SGD>(other->parameters(), 0.1);
  CHECK_THAT(error_of([&] { state.capture(); }),
             Catch::Matchers::Contains("optimizer 'optimizer', group 0: parameter 0") &&
                 Catch::Matchers::Contains("does not belong to a tracked module"));
  optimizer = std::make_unique<OwnOptimizer>(net->parameters(), optim::SGDOptions(0.1));
  CHECK_THAT(error_of([&] { state.capture(); }), Catch::Matchers::Contains("'optimizer' has the unsupported type ") &&
                                                     Catch::Matchers::Contains("OwnOptimizer"));
  optimizer.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), Catch::Matchers::Contains("optimizer 'optimizer' is null"));

  auto saved = std::make_unique<SavedOptimizer>(net->parameters(), optim::SGDOptions(0.1));
  state.untrack("optimizer");
  state.track("optimizer", saved);
  CHECK(state.capture().values.at("optimizer").at("values").at("hidden") == 3);
  saved.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), Catch::Matchers::Contains("'optimizer' is null"));
}

TEST_CASE("state_that_an_edited_option_asks_for_besides_begins_from_zeros") {
  const auto check = [](const std::string& name, const MakeOptimizer& saved, const MakeOptimizer& edited) {
    INFO(name);
    Program before(saved), after(edited), fresh(edited);
    before.steps(3);
    TrackedRun run;
    run.save(before.state);
    after.state.restore(run.newest());
    for (const float loss : after.steps(3)) CHECK(std::isfinite(loss));
    fresh.steps(1);
    CHECK(other_tensors(bytes_of(after.state), bytes_of(fresh.state)).size() >= 1);
    run.save(after.state);  // with all state that the edited options need
    CHECK(bytes_of(after.state).tensors.size() == bytes_of(fresh.state).tensors.size());
  };
  check("Adam", make<optim::Adam>(optim::AdamOptions(0.02)), make<optim::Adam>(optim::AdamOptions(0.02).amsgrad(true)));
  check("AdamW", make<optim::AdamW>(optim::AdamWOptions(0.02)),
        make<optim::AdamW>(optim::AdamWOptions(0.02).amsgrad(true)));
  check("RMSprop", make<optim::RMSprop>(optim::RMSpropOptions(0.02)),
        make<optim::RMSprop>(optim::RMSpropOptions(0.02).momentum(0.9).centered(true)));
  check("SGD", make<optim::SGD>(optim::SGDOptions(0.02)), make<optim::SGD>(optim::SGDOptions(0.02).momentum(0.9)));
}

TEST_CASE("a_parameter_in_no_tracked_module_is_named_by_group_and_position") {
  torch::nn::Linear tracked(2, 3), forgotten(3, 5);
  std::vector<optim::OptimizerParamGroup> groups = {
      tracked->parameters(), std::vector<torch::Tensor>{tracked->weight.clone(), forgotten->weight}};
  groups[1].params()[0] = forgotten->bias;
  optim::Adam optimizer(groups, optim::AdamOptions(0.1));
  RunState state;
  state.track("net", tracked).track("optimizer", optimizer);
  CHECK(error_of([&] { state.begin(); }) ==
        "optimizer 'optimizer', group 1: parameter 0 (F32 [5]) does not belong to a tracked module: track its module, "
        "or the tensor "
        "itself");
  state.track("bias", forgotten->bias);
  CHECK_THAT(error_of([&] { state.capture(); }), Catch::Matchers::Contains("group 1: parameter 1 (F32 [5, 3])"));
  state.track("weight", forgotten->weight);
  CHECK(error_of([&] { state.begin(); }).empty());
}

TEST_CASE("an_optimizer_of_the_users_own_needs_save_and_load") {
  torch::nn::Linear net(2, 3);
  OwnOptimizer own(net->parameters(), optim::SGDOptions(0.1));
  RunState state;
  state.track("net", net);
  CHECK_THAT(error_of([&] { state.track("optimizer", own); }),
             Catch::Matchers::Contains("OwnOptimizer") && Catch::Matchers::Contains("give it save(holdfast::State&)"));

  SavedOptimizer saved(net->parameters(), optim::SGDOptions(0.1));
  state.track("optimizer", saved);
  TrackedRun run;
  run.save(state);
  saved.hidden = 0;
  state.restore(run.newest());
  CHECK(saved.hidden == 3);
}

TEST_CASE("an_optimizer_that_does_not_fit_changes_nothing") {
  Program adam(optimizers().front().second);
  adam.steps(2);
  TrackedRun run;
  run.save(adam.state);

  Program sgd(make<optim::SGD>(optim::SGDOptions(0.1).momentum(0.5)), 3);
  sgd.steps(1);
  const auto before = bytes_of(sgd.state);
  const auto fit = sgd.state.check(run.newest().manifest());
  REQUIRE(fit.differences.size() == 1);
  CHECK(fit.differences[0].what == "optimizer is SGD in the program and Adam in the checkpoint");
  CHECK_FALSE(error_of([&] { sgd.state.restore(run.newest()); }).empty());
  CHECK(other_parts(bytes_of(sgd.state), before) == kNone);
}

TEST_CASE("new_parameters_start_without_state_where_that_is_allowed") {
  torch::nn::Linear body(2, 3), head(3, 2);
  optim::Adagrad small(body->parameters(), optim::AdagradOptions(0.1));
  RunState saved;
  saved.track("body", body).track("optimizer", small);
  body->forward(torch::ones({1, 2})).sum().backward();
  small.step();
  TrackedRun run;
  run.save(saved);

  auto parameters = body->parameters();
  for (const auto& parameter : head->parameters()) parameters.push_back(parameter);
  optim::Adagrad large(parameters, optim::AdagradOptions(0.1));
  RunState program;
  program.track("body", body).track("head", head).track("optimizer", large);
  CHECK(program.check(run.newest().manifest()).differences.size() == 4);
  const auto restored = program.restore(run.newest(), {.allow_missing = {"head*"}, .allow_unexpected = {}});
  CHECK(restored.notes.size() == 4);
  head->forward(body->forward(torch::ones({1, 2}))).sum().backward();
  large.step();  // Adagrad makes state in its constructor; the head's must still exist
  const auto& state = static_cast<optim::AdagradParamState&>(*large.state().at(body->weight.unsafeGetTensorImpl()));
  CHECK(state.step() == 2);
}
