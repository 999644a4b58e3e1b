// State that does not fit the program is refused completely, before anything is overwritten, unless a difference is
// allowed by name.
#include <torch/torch.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "message_parts.h"
#include "state/save_and_restore.h"

using holdfast::Difference;
using holdfast::RunState;
using holdfast::storage::StatusCode;

TEST_CASE("an_invalid_saved_value_of_a_tensor_is_a_difference_with_its_name") {
  torch::Tensor held = torch::ones({2}), other = torch::ones({2}), flag = torch::ones({2}, torch::requires_grad());
  RunState from;
  from.track("held", held).track("other", other).track("flag", flag);
  TrackedRun run;
  run.save(from);
  holdfast::storage::Manifest manifest = run.newest().manifest();
  manifest.values["held"] = "abacus:7";
  manifest.values["other"] = {{"device", 5}};
  manifest.values["flag"] = {{"device", "cpu"}, {"requires_grad", "often"}};

  torch::Tensor undefined, none, present = torch::zeros({2}, torch::requires_grad());
  RunState to;
  to.track("held", undefined).track("other", none).track("flag", present);
  const auto fit = to.check(manifest);
  REQUIRE(fit.differences.size() == 3);
  for (const auto& difference : fit.differences) CHECK(difference.kind == Difference::Kind::value);
  CHECK(lacking(fit.differences[0].what, {"flag", "tensor in the program"}) == "");
  CHECK(lacking(fit.differences[1].what, {"held", "device", "\"abacus:7\""}) == "");
  CHECK(lacking(fit.differences[2].what, {"other", "tensor in the program"}) == "");
}

TEST_CASE("the_generator_of_a_missing_device_is_reported_and_not_incompatible") {
  if (torch::cuda::device_count() > 0) return;
  torch::Tensor state = torch::zeros({16}, torch::kByte);
  RunState from, to;
  from.track("generator.cuda0", state);
  TrackedRun run;
  run.save(from);
  const auto restored = to.restore(run.newest(), {.allow_missing = {}, .allow_unexpected = {"generator.cuda0"}});
  CHECK(lacking(restored.notes.front(), {"generator.cuda0", "0 CUDA devices"}) == "");
}

TEST_CASE("a_tensor_that_an_optimizer_updates_does_not_take_another_shape") {
  torch::Tensor saved = torch::ones({2}, torch::requires_grad()), loaded = torch::ones({3}, torch::requires_grad());
  torch::optim::SGD optimizer({saved}, 0.1), other_optimizer({loaded}, 0.1);
  RunState from, to;
  from.track("x", saved).track("optimizer", optimizer);
  to.track("x", loaded).track("optimizer", other_optimizer);
  CHECK(refusal_lacking(
            StatusCode::misfit, [&] { carry(from, to); },
            {"x is F32 [3] in the program", "F32 [2] in the checkpoint", "--holdfast.allow-mismatch 'x'"}) == "");
}

TEST_CASE("a_parameter_of_another_shape_keeps_the_programs_values_if_the_mismatch_is_allowed") {
  const auto make = [](std::int64_t classes) {
    return torch::nn::Sequential(torch::nn::Linear(2, 3), torch::nn::Linear(3, classes));
  };
  auto net = make(2), wider = make(5);
  torch::optim::Adam optimizer(net->parameters(), 0.1), other_optimizer(wider->parameters(), 0.1);
  RunState from, to;
  from.track("net", net).track("optimizer", optimizer);
  to.track("net", wider).track("optimizer", other_optimizer);
  net->forward(torch::ones({1, 2})).sum().backward();
  optimizer.step();
  const auto head = wider->named_parameters()["1.weight"].detach().clone();
  CHECK(refusal_lacking(StatusCode::misfit, [&] { carry(from, to); }, {"--holdfast.allow-mismatch 'net.1.*'"}) == "");
  const auto notes =
      carry(from, to, {.allow_missing = {}, .allow_unexpected = {}, .allow_mismatch = {"net.1.*"}}).notes;
  CHECK(notes.size() == 4);
  CHECK(lacking(notes[0], {"net.1.weight", "F32 [5, 3] in the program", "F32 [2, 3] in the checkpoint"}) == "");
  CHECK(same_bytes(wider->named_parameters()["0.weight"], net->named_parameters()["0.weight"]));
  CHECK(same_bytes(wider->named_parameters()["1.weight"], head));
  wider->forward(torch::ones({1, 2})).sum().backward();
  other_optimizer.step();
  CHECK(other_optimizer.state().size() == 4);
}

TEST_CASE("a_checkpoint_of_another_program_is_reported_in_a_few_lines") {
  torch::nn::Sequential theirs, ours;
  for (int i = 0; i < 20; ++i) theirs->push_back(torch::nn::Linear(2, 2)), ours->push_back(torch::nn::Linear(2, 2));
  RunState from, to;
  from.track("generator_net", theirs);
  to.track("net", ours);
  TrackedRun run;
  run.save(from);
  const std::string message = error_of([&] { to.restore(run.newest()); });
  CHECK(lacking(message, {"another program", "--holdfast.run NAME"}) == "");
  CHECK(std::count(message.begin(), message.end(), '\n') < 10);
}

TEST_CASE("an_incompatible_checkpoint_lists_every_difference_and_changes_nothing") {
  auto saved_net = make_net(3);
  double best = 2;
  torch::Tensor mask = torch::ones({2}), old = torch::ones({2, 1}), tied = old;
  RunState from;
  from.track("net", saved_net).track("best", best).track("mask", mask).track("old", old).track("tied", tied);
  TrackedRun run;
  run.save(from);

  auto net = make_net(4);
  net->push_back(torch::nn::Linear(4, 1));
  int epoch = 3;
  torch::Tensor other_mask = torch::zeros({2}, torch::kBool);
  RunState to;
  to.track("net", net).track("epoch", epoch).track("mask", other_mask);
  const auto before = bytes_of(to);
  const std::string message = error_of([&] { to.restore(run.newest()); });
  CHECK(lacking(message, {"2-aaaa", "12", "--holdfast.from", "--holdfast.run",
                          "track(\"net\", net, holdfast::resizable)", "--holdfast.allow-missing 'epoch'",
                          "--holdfast.allow-missing 'net.2.*'", "--holdfast.allow-unexpected 'best'",
                          "--holdfast.allow-unexpected 'old'", "--holdfast.allow-unexpected 'tied'",
                          "--holdfast.allow-mismatch 'net.0.*'", "--holdfast.allow-mismatch 'net.1.*'"}) == "");
  CHECK(lines_of(message) == 13);
  using Kind = Difference::Kind;
  const struct {
    std::string name;
    Kind kind;
    std::string in_program, in_checkpoint;
  } expected[] = {{"best", Kind::unexpected, "not in the program", "in the checkpoint (a value)"},
                  {"epoch", Kind::missing, "in the program (a value)", "not in the checkpoint"},
                  {"net.0.bias", Kind::shape, "F32 [4] in the program", "F32 [3] in the checkpoint"},
                  {"net.0.weight", Kind::shape, "F32 [4, 2] in the program", "F32 [3, 2] in the checkpoint"},
                  {"net.1.bias", Kind::shape, "F32 [4] in the program", "F32 [3] in the checkpoint"},
                  {"net.1.running_mean", Kind::shape, "F32 [4] in the program", "F32 [3] in the checkpoint"},
                  {"net.1.running_var", Kind::shape, "F32 [4] in the program", "F32 [3] in the checkpoint"},
                  {"net.1.weight", Kind::shape, "F32 [4] in the program", "F32 [3] in the checkpoint"},
                  {"net.2.bias", Kind::missing, "in the program (F32 [1])", "not in the checkpoint"},
                  {"net.2.weight", Kind::missing, "in the program (F32 [1, 4])", "not in the checkpoint"},
                  {"old", Kind::unexpected, "not in the program", "in the checkpoint (F32 [2, 1])"},
                  {"tied", Kind::unexpected, "not in the program", "in the checkpoint (tied to old)"}};
  const auto differences = to.check(run.newest().manifest()).differences;
  REQUIRE(differences.size() == std::size(expected));
  for (std::size_t i = 0; i < differences.size(); ++i) {
    CHECK(differences[i].name == expected[i].name);
    CHECK(differences[i].kind == expected[i].kind);
    CHECK(lacking(differences[i].what, {expected[i].name, expected[i].in_program, expected[i].in_checkpoint}) == "");
    CHECK(lacking(message, {differences[i].what}) == "");
  }
  CHECK(to.check(run.newest().manifest(), {.allow_missing = {"epoch", "net.2.*"},
                                           .allow_unexpected = {"best", "old", "tied"},
                                           .allow_mismatch = {"net.0.*", "net.1.*"}})
            .ok());
  CHECK(other_parts(bytes_of(to), before) == kNone);
  const auto fit = to.check(run.newest().manifest());
  CHECK(fit.message() == message);
  CHECK(other_parts(bytes_of(to), before) == kNone);
  CHECK_THAT(fit.message(2),
             ContainsSubstring("epoch") && !ContainsSubstring("net.0.bias is") && ContainsSubstring("… and 10 more"));
}

TEST_CASE("differences_are_allowed_by_name") {
  auto saved_net = make_net();
  double best = 2;
  RunState from;
  from.track("net", saved_net).track("best", best);
  auto net = make_net();
  net->push_back(torch::nn::Linear(3, 1));
  const auto head = net->named_parameters()["2.weight"].detach().clone();
  RunState to;
  to.track("net", net);
  CHECK_FALSE(error_of([&] { carry(from, to, {.allow_missing = {"net.2.*"}, .allow_unexpected = {}}); }).empty());
  const auto restored = carry(from, to, {.allow_missing = {"net.2.*"}, .allow_unexpected = {"b?st"}});
  REQUIRE(restored.notes.size() == 3);
  CHECK(lacking(restored.notes[0], {"net.2.weight", "(F32 [1, 3])", "not in the checkpoint", "'net.2.*'"}) == "");
  CHECK(lacking(restored.notes[1], {"net.2.bias", "(F32 [1])", "not in the checkpoint", "'net.2.*'"}) == "");
  CHECK(lacking(restored.notes[2], {"best", "not in the program", "'b?st'"}) == "");
  CHECK(same_bytes(net->named_parameters()["0.weight"], saved_net->named_parameters()["0.weight"]));
  CHECK(same_bytes(net->named_parameters()["2.weight"], head));
}
