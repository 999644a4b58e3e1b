#include "holdfast/runtime/platform/session_clock.h"

#include "catch.h"
#include "made_up_machine.h"

namespace holdfast {
namespace {

using test::machine;
using namespace std::chrono;

constexpr seconds kNow{1'800'000'000};

TimeLeft left_on(const std::string& place, std::optional<seconds> age, nanoseconds asked = {},
                 const Surroundings& around = machine({})) {
  return time_left(profile_of(place, around), age, asked, around, kNow);
}

TEST_CASE("a_platforms_limit_counts_from_the_machines_start") {
  const TimeLeft found = left_on("colab", hours(3));
  CHECK(found.left == hours(9));
  CHECK(found.reason == "Colab's limit of 12 h");
  CHECK(found.note.empty());
  CHECK_FALSE(left_on("local", hours(3)).left);
  CHECK_FALSE(left_on("colab", {}).left);  // the age is unknown
}

TEST_CASE("a_given_limit_replaces_the_platforms_and_counts_from_now") {
  const TimeLeft found = left_on("colab", hours(3), hours(11));
  CHECK(found.left == hours(11));
  CHECK(found.reason == "time limit of 11 h");
  CHECK(left_on("local", {}, minutes(5)).left == minutes(5));
}

TEST_CASE("a_limit_that_the_machine_has_outlived_does_not_count_and_is_noted") {
  const TimeLeft found = left_on("colab", hours(13));
  CHECK_FALSE(found.left);
  CHECK(found.note.find("--holdfast.time-limit") != std::string::npos);
}

TEST_CASE("the_end_of_a_slurm_job_counts_if_it_comes_first") {
  const auto job = [](const std::string& end) { return machine({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_END_TIME", end}}); };
  CHECK(left_on("slurm", hours(50), {}, job("1800000600")).left == minutes(10));
  CHECK(left_on("slurm", hours(50), {}, job("1800000600")).reason.find("SLURM_JOB_END_TIME") != std::string::npos);
  CHECK(left_on("slurm", {}, minutes(5), job("1800000600")).left == minutes(5));
  CHECK(left_on("slurm", {}, hours(5), job("1800000600")).left == minutes(10));
  CHECK(left_on("slurm", {}, {}, job("1799999999")).left == seconds(0));
  CHECK_FALSE(left_on("slurm", {}, {}, job("soon")).left);
  CHECK_FALSE(left_on("slurm", {}, {}, job("")).left);
}

TEST_CASE("p95_is_the_cost_that_nineteen_of_twenty_do_not_exceed_among_the_newest") {
  Costs costs;
  CHECK(costs.p95() == nanoseconds(0));
  costs.add(seconds(7));
  CHECK(costs.p95() == seconds(7));
  for (int i = 1; i <= 20; ++i) costs.add(seconds(i));
  CHECK(costs.p95() == seconds(19));  // of 21
  for (int i = 0; i < 32; ++i) costs.add(seconds(1));
  CHECK(costs.p95() == seconds(1));
}

TEST_CASE("a_run_stops_while_one_more_step_and_the_save_after_it_still_fit") {
  const steady_clock::time_point start{};
  const auto end = start + minutes(60);
  Costs steps, saves;
  steps.add(seconds(20));
  saves.add(seconds(40));
  const auto stops = [&](nanoseconds at) { return must_stop(start + at, end, minutes(2), steps, saves); };
  CHECK_FALSE(stops(minutes(56)));
  CHECK_FALSE(stops(minutes(57)));
  CHECK(stops(minutes(57) + milliseconds(1)));
  CHECK(stops(minutes(90)));
}

}  // namespace
}  // namespace holdfast
