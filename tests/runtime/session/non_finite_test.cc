// Versions with NaN and infinities: what is logged, and what a run does when its policy is to stop or to roll back.
#include <sys/wait.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <set>

#include "catch.h"
#include "checkpoint/non_finite_counts.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/policy/on_non_finite.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "ranks.h"
#include "session_run.h"

namespace {

using namespace holdfast;

// Counts its steps in a tensor beside a mask of -inf; in some steps the tensor becomes NaN.
struct PoisonedProgram {
  std::uint64_t count = 10;
  std::set<std::uint64_t> poisoned = {};
  std::uint64_t from_on = std::numeric_limits<std::uint64_t>::max();  // every step from this one on is poisoned
  std::uint64_t dies_at = 0;

  torch::Tensor weight = torch::zeros({4}, torch::kDouble);
  torch::Tensor mask = torch::full({3}, -std::numeric_limits<double>::infinity());
  std::vector<std::uint64_t> numbers = {};

  int operator()(Session& session) {
    session.track("weight", weight).track("mask", mask);
    for (auto& step : session.steps({.count = count})) {
      numbers.push_back(step.number());
      weight += 1;
      if (poisoned.contains(step.number()) || step.number() >= from_on) weight[0] = std::nan("");
      if (step.number() == dies_at) ::_exit(9);
    }
    return session.finish();
  }
};

SessionOptions with(const Run& run, const std::string& on_nonfinite) {
  SessionOptions options = run.options();
  options.on_nonfinite = on_nonfinite;
  return options;
}

std::vector<std::uint64_t> up_to(std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t n = 1; n <= last; ++n) numbers.push_back(n);
  return numbers;
}

}  // namespace

TEST_CASE("on_nonfinite_is_parsed_and_invalid_values_are_refused") {
  CHECK(parse_on_non_finite("note") == OnNonFinite{});
  CHECK(parse_on_non_finite("stop") == OnNonFinite{OnNonFinite::Act::stop, 0});
  CHECK(parse_on_non_finite("rollback:250") == OnNonFinite{OnNonFinite::Act::rollback, 250});
  for (const char* wrong : {"", "Stop", "rollback", "rollback:", "rollback:0", "rollback:-1", "rollback:5 "}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(parse_on_non_finite(wrong), Error);
  }
}

TEST_CASE("more_nan_is_counted_by_tensor_and_three_tensors_are_named") {
  CHECK(more_non_finite({{"mask", 9}}, {{"mask", 9}}, "version 1").empty());
  CHECK(more_non_finite({{"mask", 9}}, {{"mask", 8}}, "version 1").empty());
  const std::string one = more_non_finite({{"mask", 9}}, {{"mask", 8}, {"w", 1}}, "version 1");
  CHECK(has_line(one, {"1 more", "NaN", "version 1", "'w'"}));
  CHECK_FALSE(has_line(one, {"'mask'"}));
  CHECK(has_line(more_non_finite({}, {{"a", 1}, {"b", 2}}, "version 1"), {"3 more", "NaN", "version 1", "'a'", "'b'"}));
  const std::string five = more_non_finite({}, {{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1}}, "version 1");
  CHECK(has_line(five, {"5 more", "NaN", "version 1", "'a'", "'b'", "'c'", "2 more tensors"}));
  CHECK_FALSE(has_line(five, {"'d'"}));
  // All ranks held the same mask, and now they differ.
  CHECK(more_non_finite({{"mask", 9}}, {{"mask", 9}, {"mask@1", 9}}, "version 1").empty());
}

TEST_CASE("new_nan_is_reported_once_and_a_constant_mask_of_infinities_never") {
  Run run;
  run.every = "2";
  PoisonedProgram program{.poisoned = {5}};
  CHECK(run.session(program) == kDone);
  CHECK(count_lines(run.said(), {" more ", "NaN", " than "}) == 1);
  CHECK(has_line(run.said(), {"1 more", "NaN", "version ", "'weight'"}));
  // A resume compares with the version that it continues from.
  PoisonedProgram longer{.count = 14};
  CHECK(run.session(longer) == kDone);
  CHECK(count_lines(run.said(), {" more ", "NaN", " than "}) == 1);
}

TEST_CASE("nan_in_a_runs_first_version_is_distinguished_from_a_mask_of_infinities") {
  for (const bool poisoned : {false, true}) {
    const Run run;
    PoisonedProgram program{.count = 3};
    if (poisoned) program.poisoned = {2};
    CHECK(run.session(program) == kDone);
    CHECK(count_lines(run.said(), {"1 more", "NaN", "began", "'weight'"}) == (poisoned ? 1 : 0));
    CHECK(count_lines(run.said(), {" more ", "NaN"}) == (poisoned ? 1 : 0));
  }
}

TEST_CASE("a_run_that_stops_at_nan_saves_and_continues_only_from_a_chosen_version") {
  Run run;
  run.every = "2";
  const auto life = [&](PoisonedProgram program, SessionOptions options) {
    const int code = run.session(program, std::move(options));
    CHECK((program.numbers.empty() || program.numbers.back() == (code == kDone ? 10 : 6)));
    return code;
  };
  CHECK(life({.poisoned = {5}}, with(run, "stop")) == kRunAgain);
  const auto versions = run.versions();
  REQUIRE(versions.size() == 3);
  CHECK(versions.back().position.step == 6);
  const std::string before = versions[1].uid.short_text();
  CHECK(has_line(run.said(), {"step 6", versions.back().uid.short_text(), "--holdfast.from " + before}));

  const Error refusal = refusal_of([&] { life({}, with(run, "stop")); });
  INFO(refusal.what());
  CHECK(refusal.code() == storage::StatusCode::misfit);
  CHECK(has_line(refusal.what(), {"1 more", "'weight'", "--holdfast.from " + before, "--holdfast.on-nonfinite note"}));

  SessionOptions from = with(run, "stop");
  from.from = before;
  PoisonedProgram again;
  CHECK(run.session(again, from) == kDone);
  CHECK(again.numbers == std::vector<std::uint64_t>{5, 6, 7, 8, 9, 10});
  CHECK(again.weight[0].item<double>() == 10);
  CHECK(run.session(again, from) == kDone);  // the same command again
}

TEST_CASE("a_rollback_skips_the_steps_since_the_version_before_and_a_kill_changes_nothing") {
  // A process that has used CUDA cannot use it in a child, so the children come first.
  constexpr std::uint64_t kSteps = 12;
  const std::vector<Run> killed(kSteps);
  for (std::uint64_t dies_at = 1; dies_at <= kSteps; ++dies_at) {
    CAPTURE(dies_at);
    const Run& run = killed[dies_at - 1];
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      run.session(PoisonedProgram{.count = kSteps, .poisoned = {5}, .dies_at = dies_at}, with(run, "rollback:2"));
      ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 9));
  }

  const Run undisturbed;
  PoisonedProgram program{.count = kSteps, .poisoned = {5}};
  CHECK(undisturbed.session(program, with(undisturbed, "rollback:2")) == kDone);
  CHECK(program.numbers == up_to(12));  // the loop continues from where it is
  CHECK(program.weight[0].item<double>() == 10);
  CHECK(has_line(undisturbed.said(), {"step 6", "1 more", "NaN", "version ", "2 steps", "rollback 1"}));
  const auto versions = undisturbed.versions();
  for (const auto& version : versions) CHECK(version.non_finite == 3);  // those of the mask
  CHECK(versions.back().position.step == 12);
  CHECK(versions.back().values.at("holdfast").at("rollbacks").at("total") == 1);
  CHECK(versions.back().values.at("holdfast").at("rollbacks").at("skipped") == 2);

  for (const Run& run : killed) {
    CAPTURE(&run - killed.data() + 1);
    PoisonedProgram rest{.count = kSteps, .poisoned = {5}};
    CHECK(run.session(rest, with(run, "rollback:2")) == kDone);
    CHECK(rest.weight[0].item<double>() == 10);
    CHECK(run.versions().back().values == versions.back().values);
  }
}

TEST_CASE("a_run_is_rolled_back_in_its_first_steps_too") {
  const Run run;
  PoisonedProgram program{.count = 5, .poisoned = {1}};
  CHECK(run.session(program, with(run, "rollback:3")) == kDone);
  CHECK(program.weight[0].item<double>() == 2);
}

TEST_CASE("a_rollback_does_not_move_the_loader_of_its_loop") {
  struct Numbers : torch::data::datasets::Dataset<Numbers> {
    torch::data::Example<> get(std::size_t index) override {
      return {torch::full({1}, static_cast<double>(index)), torch::zeros({1})};
    }
    std::optional<std::size_t> size() const override { return 8; }
  };
  Run run;
  run.every = "never";
  run.session(
      [](Session& session) {
        Loader loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 2, .shuffle = false});
        std::vector<double> seen;
        torch::Tensor sum = torch::zeros({1}, torch::kDouble);
        session.track("sum", sum).track("loader", loader);
        for (auto& epoch : session.epochs(loader, 2)) {
          for (auto& batch : epoch) {
            seen.push_back(batch.data[0].item<double>());
            sum += seen.back();
            if (batch.number() == 3) sum += std::nan("");
          }
        }
        CHECK(seen == std::vector<double>{0, 2, 4, 6, 0, 2, 4, 6});
        CHECK(sum.item<double>() == 0 + 2 + 6 + 0 + 2 + 4 + 6);
        return session.finish();
      },
      with(run, "rollback:1"));
}

TEST_CASE("three_rollbacks_without_a_version_in_between_end_the_run") {
  const Run run;
  PoisonedProgram program{.count = 100, .from_on = 5};
  const Error refusal = refusal_of([&] { run.session(program, with(run, "rollback:2")); });
  CHECK(program.numbers == up_to(12));
  INFO(refusal.what());
  CHECK(refusal.code() == storage::StatusCode::invalid);
  CHECK(has_line(refusal.what(), {"step 12", "1 more", "NaN", "3 rollbacks"}));
  // Progress in between resets the count.
  const Run other;
  CHECK(other.session(PoisonedProgram{.count = 20, .poisoned = {3, 7, 11, 15, 19}}, with(other, "rollback:2")) ==
        kDone);
  CHECK(count_lines(other.said(), {"rollback 5"}) == 1);
}

TEST_CASE("all_ranks_roll_back_when_one_of_them_gets_nan", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    SessionOptions options;
    options.dir = folder.path().string();
    options.run = "run";
    options.device = "cpu";
    options.on_nonfinite = "rollback:2";
    auto session = Session::start(options);
    torch::Tensor own = torch::zeros({2});
    session.track("own", own);
    for (auto& step : session.steps({.count = 8})) {
      own += 1 + session.rank();
      if (step.number() == 3 && session.rank() == 1) own[1] = std::nan("");
    }
    if (own[1].item<double>() != 6 * (1 + session.rank())) return 5;
    return session.finish();
  });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == kDone);
  }
}
