// Epochs over batches that the program holds itself.
#include <fmt/format.h>

#include <cstdint>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"

namespace {

using namespace holdfast;

}  // namespace

TEST_CASE("epochs_over_the_programs_own_batches_resume_inside_an_epoch") {
  Run run;
  run.every = "1";
  std::vector<std::string> order;
  double sum = 0;
  const auto life = [&](int stops_at, std::vector<double> own = {1, 2, 3, 4}, bool allowed = false) {
    auto options = run.options();
    options.allow_dataset_change = allowed;
    return run.session(
        [&](Session& session) {
          session.track("sum", sum);
          int seen = 0;
          for (auto& epoch : session.epochs({.count = 3}, own)) {
            for (double& batch : epoch) {
              sum = sum * 2 + batch;
              order.push_back(fmt::format("{}:{}", epoch.number(), batch));
              if (++seen == stops_at) session.stop("enough");
            }
            sum += 100;
          }
          return session.finish();
        },
        options);
  };
  CHECK(life(6) == kRunAgain);
  CHECK(run.versions().back().position.epoch == 1);
  CHECK(run.versions().back().position.samples == 0);

  const Error refusal = refusal_of([&] { life(0, {1, 2, 3}); });
  INFO(refusal.what());
  CHECK(refusal.code() == storage::StatusCode::misfit);
  CHECK(has_line(refusal.what(), {"3 batches", "2 of 4", "epoch 2", "--holdfast.allow-dataset-change"}));
  SECTION("with the same number") {
    order.clear();
    CHECK(life(2) == kRunAgain);  // where an epoch's batches are finished, but its body is not
    CHECK(life(0) == kDone);
    CHECK(order == std::vector<std::string>{"1:3", "1:4", "2:1", "2:2", "2:3", "2:4"});
    CHECK(life(0) == kDone);
    const double resumed = std::exchange(sum, 0);
    const Run other;
    other.session([&](Session& session) {
      session.track("sum", sum);
      std::list<double> own{1, 2, 3, 4};
      for (auto& epoch : session.epochs({.count = 3}, own)) {
        for (const double batch : epoch) sum = sum * 2 + batch;
        sum += 100;
      }
      return session.finish();
    });
    CHECK(sum == resumed);
  }
  SECTION("with another one where that is allowed") {
    order.clear();
    CHECK(life(0, {1, 2, 3}, true) == kDone);
    CHECK(order == std::vector<std::string>{"1:1", "1:2", "1:3", "2:1", "2:2", "2:3"});
  }
}

TEST_CASE("the_number_of_the_programs_own_batches_may_change_between_epochs") {
  Run run;
  int seen = 0;
  const auto life = [&](std::uint64_t epochs, std::size_t count) {
    return run.session([&](Session& session) {
      session.track("seen", seen);
      std::vector<int> own(count, 1);
      for (auto& epoch : session.epochs({.count = epochs}, own)) {
        for (const int one : epoch) seen += one;
        own.push_back(1);
      }
      return session.finish();
    });
  };
  CHECK(life(2, 3) == kDone);
  CHECK(seen == 3 + 4);
  CHECK(life(3, 6) == kDone);
  CHECK(seen == 7 + 6);
}
