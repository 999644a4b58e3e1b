// Parameter groups that were added, removed, split, merged or reordered, by the code or while the run trained.
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "message_parts.h"
#include "tracked_run.h"

using holdfast::RunState;
namespace optim = torch::optim;

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

/// A change that sets the learning rates of the first two groups.
auto rates(double first, double second) {
  return [=](GroupedProgram& program) {
    program.set_lr(0, first);
    program.set_lr(1, second);
  };
}

}  // namespace

TEST_CASE("options_follow_their_parameters_if_groups_are_reordered") {
  const TrackedRun run = saved_after({{"ab", 0.1}, {"cd", 0.1}}, rates(0, 0.5));
  GroupedProgram swapped({{"cd", 0.1}, {"ab", 0.1}});
  CHECK(swapped.state.restore(run.newest()).notes.empty());
  CHECK(swapped.groups() == Groups{{"cd", 0.5}, {"ab", 0}});

  const TrackedRun fewer = saved_after({{"b", 0.1}, {"cd", 0.1}}, rates(0, 0.5));
  GroupedProgram inserted({{"a", 0.1}, {"b", 0.1}, {"cd", 0.1}});
  const auto notes = inserted.state.restore(fewer.newest(), {.allow_missing = {"net.a"}, .allow_unexpected = {}}).notes;
  CHECK(inserted.groups() == Groups{{"a", 0.1}, {"b", 0}, {"cd", 0.5}});
  REQUIRE(notes.size() == 2);
  CHECK(lacking(notes[1], {"optimizer group 0", "not in the checkpoint"}) == "");
}

TEST_CASE("parameter_groups_changed_during_the_run_are_restored") {
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

TEST_CASE("an_added_parameter_group_is_restored_beside_groups_edited_in_the_code") {
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
             ContainsSubstring("optimizer.state.net.c is in the checkpoint"));
}

TEST_CASE("a_split_or_merged_group_takes_its_parameters_options_if_they_agree") {
  const TrackedRun one = saved_after({{"abcd", 0.1}}, [](GroupedProgram& program) { program.set_lr(0, 0.05); });
  GroupedProgram split({{"ab", 0.1}, {"cd", 0.1}});
  CHECK(split.state.restore(one.newest()).notes.empty());
  CHECK(split.groups() == Groups{{"ab", 0.05}, {"cd", 0.05}});

  const TrackedRun two = saved_after({{"ab", 0.1}, {"cd", 0.1}}, rates(0.05, 0.05));
  GroupedProgram merged({{"abcd", 0.1}});
  CHECK(merged.state.restore(two.newest()).notes.empty());
  CHECK(merged.groups() == Groups{{"abcd", 0.05}});

  const TrackedRun other = saved_after({{"ab", 0.1}, {"cd", 0.1}}, rates(0.05, 0.02));
  GroupedProgram disagreeing({{"abcd", 0.1}});
  const auto notes = disagreeing.state.restore(other.newest()).notes;
  CHECK(disagreeing.groups() == Groups{{"abcd", 0.1}});
  REQUIRE(notes.size() == 1);
  CHECK(lacking(notes[0], {"optimizer group 0", "lr", "0.05 for net.a", "0.02 for net.c", "0.1"}) == "");
}
