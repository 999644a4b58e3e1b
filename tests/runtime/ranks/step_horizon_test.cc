#include "ranks/step_horizon.h"

#include <deque>
#include <random>
#include <vector>

#include "catch.h"

using holdfast::Grant;
using holdfast::StepHorizon;
using holdfast::StopRequest;
using std::chrono::milliseconds;

namespace {

constexpr std::uint64_t kNoEnd = 1'000'000;

// A rank other than rank 0: it learns of grants late, and starts no step beyond the last one that it knows of.
struct Other {
  std::uint64_t step = 0;
  Grant known;
  std::deque<Grant> on_the_way;
  std::vector<std::pair<std::uint64_t, StopRequest>> did;

  void learn() {
    if (on_the_way.empty()) return;
    known = on_the_way.front();
    on_the_way.pop_front();
  }
  // Whether it is at the end of the step after which a request is carried out.
  bool is_due() const {
    return known.at == step && !known.request.empty() && (did.empty() || did.back().first != step);
  }
  bool may_go_on() const { return !is_due() && step < known.until; }
};

}  // namespace

TEST_CASE("requests_take_effect_after_the_same_step_on_every_rank") {
  for (unsigned seed = 0; seed < 300; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    StepHorizon horizon;
    StepHorizon::Clock::time_point now;
    std::vector<Other> others(1 + seed % 3);
    std::vector<std::pair<std::uint64_t, StopRequest>> did;
    std::uint64_t step = 0, epoch_end = 40;
    std::optional<StopRequest> due;
    Grant sent;
    std::size_t wishes = 0;
    for (int turn = 0; turn < 4000; ++turn) {
      const auto who = random() % (others.size() + 1);
      if (who < others.size()) {
        Other& other = others[who];
        if (random() % 3 == 0) other.learn();
        if (other.may_go_on()) ++other.step;
        // All ranks carry out a request together: this one has reached it.
        if (other.is_due()) other.did.emplace_back(other.step, other.known.request);
        // An epoch may end sooner than the others know: rank 0 must have reached its end before they continue beyond
        // it.
        REQUIRE(other.step <= epoch_end + (step == epoch_end ? 1 : 0));
        continue;
      }
      if (due) {
        // Rank 0 waits in the request's collective until every rank has reached it.
        bool all = true;
        for (const Other& other : others) all = all && other.did.size() == did.size();
        if (!all) continue;
        due.reset();
      }
      if (step == epoch_end) {  // the ranks start the next epoch together
        bool all = true;
        for (const Other& other : others) all = all && other.step >= step;
        if (!all) continue;
        epoch_end += 40;
      }
      if (step >= horizon.grant().until) {
        // Only the first step needs no grant.
        REQUIRE(step == 0);
      }
      ++step;
      now += milliseconds(20 + random() % 200);
      StopRequest wish;
      if (random() % 17 == 0) wish.save = "wish " + std::to_string(++wishes);
      due = horizon.reach(step, epoch_end, now, wish);
      if (due) did.emplace_back(step, *due);
      // Grants never exceed the epoch's end, except for the step that rank 0 itself is about to take.
      REQUIRE(horizon.grant().until <= std::max(epoch_end, step + 1));
      for (Other& other : others) other.on_the_way.push_back(horizon.grant());
    }
    REQUIRE(did.size() > 3);
    for (Other& other : others) {
      while (!other.on_the_way.empty() || other.may_go_on()) {
        other.learn();
        if (other.may_go_on()) ++other.step;
        if (other.is_due()) other.did.emplace_back(other.step, other.known.request);
        if (other.step >= step) break;
      }
      const std::size_t common = std::min(did.size(), other.did.size());
      REQUIRE(common + 1 >= did.size());
      for (std::size_t i = 0; i < common; ++i) {
        CHECK(other.did[i].first == did[i].first);
        CHECK(other.did[i].second == did[i].second);
      }
    }
  }
}

TEST_CASE("a_request_made_while_another_is_pending_must_be_repeated_by_the_caller") {
  StepHorizon horizon;
  StepHorizon::Clock::time_point now;
  std::uint64_t step = 0;
  while (horizon.grant().until < step + 5) (void)horizon.reach(++step, kNoEnd, now += milliseconds(10), {});
  (void)horizon.reach(++step, kNoEnd, now += milliseconds(10), {.save = "first"});
  CHECK(horizon.took_wish());
  const std::uint64_t at = horizon.grant().at;
  REQUIRE(at > step + 1);
  (void)horizon.reach(++step, kNoEnd, now += milliseconds(10), {.stop = "second"});
  CHECK_FALSE(horizon.took_wish());
  std::optional<StopRequest> due;
  while (!due) due = horizon.reach(++step, kNoEnd, now += milliseconds(10), {});
  CHECK(step == at);
  CHECK(*due == StopRequest{.save = "first"});
}

TEST_CASE("steps_are_granted_for_about_a_second") {
  CHECK(StepHorizon::steps_ahead(milliseconds(0)) == 2);
  CHECK(StepHorizon::steps_ahead(milliseconds(10)) == 100);
  CHECK(StepHorizon::steps_ahead(std::chrono::minutes(1)) == 2);
  CHECK(StepHorizon::steps_ahead(std::chrono::nanoseconds(1)) == std::uint64_t{1} << 20);
}
