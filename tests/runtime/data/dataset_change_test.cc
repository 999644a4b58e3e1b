// How a resume treats a dataset of another size, and an order chosen by the program.
#include <torch/torch.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"

namespace {

using namespace holdfast;

struct CountedSamples : torch::data::datasets::Dataset<CountedSamples> {
  explicit CountedSamples(std::size_t count) : count(count) {}
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({1}, static_cast<float>(index)), torch::zeros({1})};
  }
  std::optional<std::size_t> size() const override { return count; }
  std::size_t count;
};

std::vector<std::size_t> shuffled(std::size_t count, std::uint64_t epoch, std::uint32_t seed = 1) {
  std::vector<std::size_t> indices(count);
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  std::shuffle(indices.begin(), indices.end(), std::mt19937(seed + static_cast<std::uint32_t>(epoch)));
  return indices;
}

/// Trains, and records the samples of each step.
struct Program {
  LoaderOptions loading = {.batch_size = 4};
  bool nested = false;
  std::vector<std::size_t> seen = {};

  int run(Session& session, std::size_t samples, std::uint64_t epochs, std::uint64_t stops_at) {
    Loader loader(CountedSamples(samples).map(torch::data::transforms::Stack<>()), loading);
    const auto step = [&](auto& batch) {
      for (std::int64_t i = 0; i < batch.data.numel(); ++i) {
        seen.push_back(static_cast<std::size_t>(batch.data[i].template item<float>()));
      }
      if (batch.number() == stops_at) session.stop("enough");
    };
    if (nested) {
      for (auto& epoch : session.epochs(loader, epochs)) {
        for (auto& batch : epoch) step(batch);
      }
    } else {
      for (auto& batch : session.steps(loader, {.epochs = epochs})) step(batch);
    }
    return session.finish();
  }
};

bool is_permutation_of(std::vector<std::size_t> seen, std::size_t begin, std::size_t end, std::size_t count) {
  std::vector<std::size_t> part(seen.begin() + static_cast<std::ptrdiff_t>(begin),
                                seen.begin() + static_cast<std::ptrdiff_t>(end));
  std::sort(part.begin(), part.end());
  std::vector<std::size_t> all(count);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return part == all;
}

}  // namespace

TEST_CASE("a_complete_run_continues_with_more_data_and_logs_it") {
  for (const bool nested : {false, true}) {
    for (const bool drop_last : {false, true}) {
      CAPTURE(nested, drop_last);
      const Run run;
      Program program{.loading = {.batch_size = 4, .drop_last = drop_last}, .nested = nested};
      const auto life = [&](std::size_t samples, std::uint64_t epochs) {
        return run.session([&](Session& session) { return program.run(session, samples, epochs, 0); });
      };
      CHECK(life(13, 2) == kDone);
      program.seen.clear();
      CHECK(life(16, 3) == kDone);
      REQUIRE(program.seen.size() == 16);
      CHECK(is_permutation_of(program.seen, 0, 16, 16));
      CHECK(run.said().find("the dataset has 16 samples and had 13") != std::string::npos);
    }
  }
}

TEST_CASE("more_data_inside_an_epoch_needs_an_option_and_restarts_that_epoch") {
  const Run run;
  Program program;
  auto options = run.options();
  const auto life = [&](std::size_t samples, std::uint64_t stops_at) {
    program.seen.clear();
    return run.session([&](Session& session) { return program.run(session, samples, 2, stops_at); }, options);
  };
  CHECK(life(12, 4) == kRunAgain);  // one step into the second epoch
  const std::string refusal = error_of([&] { life(16, 0); });
  CHECK(lacking(refusal, {"has 16 samples", "epoch 2", "had 12", "--holdfast.allow-dataset-change"}) == "");
  CHECK(program.seen.empty());
  options.allow_dataset_change = true;
  CHECK(life(16, 0) == kDone);
  REQUIRE(program.seen.size() == 16);
  CHECK(is_permutation_of(program.seen, 0, 16, 16));
  CHECK(run.said().find("the dataset has 16 samples and had 12: epoch 2 begins again") != std::string::npos);
}

TEST_CASE("a_custom_order_of_samples_is_kept_after_a_resume") {
  for (const int workers : {0, 2}) {
    CAPTURE(workers);
    const Run run;
    Program program;
    program.loading.workers = workers;
    int asked = 0;
    program.loading.order = [&](std::uint64_t epoch) {
      ++asked;
      return shuffled(10, epoch);
    };
    const auto life = [&](std::uint64_t stops_at) {
      return run.session([&](Session& session) { return program.run(session, 10, 2, stops_at); });
    };
    CHECK(life(2) == kRunAgain);
    CHECK(asked == 1);
    CHECK(life(0) == kDone);
    std::vector<std::size_t> expected = shuffled(10, 0);
    const auto second = shuffled(10, 1);
    expected.insert(expected.end(), second.begin(), second.end());
    CHECK(program.seen == expected);
  }
}

TEST_CASE("another_order_of_samples_is_refused_inside_an_epoch_and_accepted_between_epochs") {
  const auto own = [](std::uint32_t seed) { return [seed](std::uint64_t epoch) { return shuffled(10, epoch, seed); }; };
  const auto life = [](const Run& run, std::function<std::vector<std::size_t>(std::uint64_t)> order,
                       std::uint64_t epochs, std::uint64_t stops_at) {
    Program program;
    program.loading.order = std::move(order);
    return run.session([&](Session& session) { return program.run(session, 10, epochs, stops_at); });
  };
  const Run run;
  CHECK(life(run, own(1), 1, 2) == kRunAgain);
  CHECK(error_of([&] { life(run, own(2), 1, 0); }).find("another order for epoch 1") != std::string::npos);
  CHECK(error_of([&] { life(run, nullptr, 1, 0); }).find("the program gives none") != std::string::npos);
  CHECK(life(run, own(1), 1, 0) == kDone);
  CHECK(life(run, own(2), 2, 0) == kDone);
  const Run other;
  CHECK(life(other, nullptr, 1, 2) == kRunAgain);
  CHECK(error_of([&] { life(other, own(1), 1, 0); }).find("the program gives one") != std::string::npos);
}

TEST_CASE("a_custom_order_of_the_wrong_length_or_with_an_invalid_index_is_refused") {
  const auto refusal_of = [](std::vector<std::size_t> order) {
    Loader loader(CountedSamples(3), {.order = [&](std::uint64_t) { return order; }});
    return error_of([&] { loader.next(); });
  };
  CHECK(lacking(refusal_of({0, 1}), {"2 indices", "epoch 0", "3 samples"}) == "");
  CHECK(lacking(refusal_of({0, 1, 3}), {"index 3"}) == "");
  CHECK(refusal_of({2, 2, 0}).empty());
}
