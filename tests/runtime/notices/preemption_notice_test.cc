// The texts in which each cloud announces that it takes the machine back.
#include "notices/preemption_notice.h"

#include <string>

#include "catch.h"

namespace {

using namespace holdfast;
using storage::StatusCode;

std::string azure_event(const std::string& type, const std::string& machine, const std::string& time) {
  return R"({"EventId":"A","EventStatus":"Scheduled","EventType":")" + type +
         R"(","ResourceType":"VirtualMachine","Resources":[")" + machine + R"("],"NotBefore":")" + time + R"("})";
}

std::string azure_document(const std::string& events) {
  return R"({"DocumentIncarnation":1,"Events":[)" + events + "]}";
}

}  // namespace

TEST_CASE("ec2s_notice_says_what_happens_and_when") {
  const auto notice = ec2_notice(R"({"action": "terminate", "time": "2017-09-18T08:22:00Z"})");
  REQUIRE((notice && *notice));
  CHECK((*notice)->reason == "EC2 will terminate this machine at 2017-09-18T08:22:00Z");
  CHECK((*notice)->machine_end == 1505722920);
  // A hibernation begins at once and has no time.
  const auto hibernation = ec2_notice(R"({"action": "hibernate"})");
  REQUIRE((hibernation && *hibernation));
  CHECK((*hibernation)->reason == "EC2 will hibernate this machine");
  CHECK_FALSE((*hibernation)->machine_end);
  for (const char* other : {"", "[]", "{}", R"({"action": 1})", "<html>", R"({"action": "stop")"}) {
    CHECK(ec2_notice(other).code() == StatusCode::corrupt);
  }
}

TEST_CASE("compute_engines_notice_is_true_or_false") {
  const auto none = gce_notice("FALSE");
  REQUIRE(none);
  CHECK_FALSE(*none);
  const auto notice = gce_notice("TRUE\n");
  REQUIRE((notice && *notice));
  CHECK_FALSE((*notice)->machine_end);
  CHECK(gce_notice("<html>").code() == StatusCode::corrupt);
}

TEST_CASE("azures_notice_is_the_first_event_that_ends_this_machine") {
  const auto none = azure_notice(azure_document(""), "worker-7");
  REQUIRE(none);
  CHECK_FALSE(*none);

  // An event of another machine of the group, and one that only pauses this machine, do not count.
  const std::string others = azure_event("Preempt", "worker-8", "Mon, 19 Sep 2016 18:29:47 GMT") + "," +
                             azure_event("Freeze", "worker-7", "Mon, 19 Sep 2016 18:29:47 GMT");
  const auto still_none = azure_notice(azure_document(others), "worker-7");
  REQUIRE(still_none);
  CHECK_FALSE(*still_none);

  const std::string late = azure_event("Reboot", "worker-7", "Mon, 19 Sep 2016 18:39:47 GMT");
  const std::string early = azure_event("Preempt", "worker-7", "Mon, 19 Sep 2016 18:29:47 GMT");
  for (const auto& both : {late + "," + early, early + "," + late}) {
    const auto notice = azure_notice(azure_document(others + "," + both), "worker-7");
    REQUIRE((notice && *notice));
    CHECK((*notice)->reason ==
          "Azure has scheduled the event Preempt for this machine, not before Mon, 19 Sep 2016 18:29:47 GMT");
    CHECK((*notice)->machine_end == 1474309787);
  }
  const auto begun = azure_notice(azure_document(early + "," + azure_event("Redeploy", "worker-7", "")), "worker-7");
  REQUIRE((begun && *begun));
  CHECK((*begun)->reason == "Azure has scheduled the event Redeploy for this machine");

  for (const char* other : {"", "[]", "{}", R"({"Events": {}})", R"({"Events": [1]})",
                            R"({"Events": [{"EventType": "Preempt", "Resources": "worker-7"}]})"}) {
    const auto notice = azure_notice(other, "worker-7");
    CHECK((!notice || !*notice));
  }
}
