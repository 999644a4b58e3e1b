#include "ranks/heartbeat.h"

#include "catch.h"
#include "message_parts.h"
#include "peers.h"

namespace {

using namespace holdfast;
using namespace peers;

}  // namespace

TEST_CASE("heartbeats_are_decoded_as_they_were_encoded") {
  Heartbeat heartbeat = failed(3, "a \"text\"\nwith \xff bytes").heartbeat;
  heartbeat.beat = 77;
  const auto again = decode_heartbeat(encode(heartbeat));
  REQUIRE(again);
  CHECK(again->beat == 77);
  CHECK(again->state == State::failed);
  CHECK(again->origin == 3);
  CHECK(again->pid == 7);
  CHECK(contains(again->text, "a \"text\"\nwith "));
  // From another build, perhaps: the content is ignored, and nothing is thrown.
  for (const char* other : {"nonsense", "[1]", R"({"state":5})", R"({"beat":"x"})", R"({"recent":[[["a"]],[7]]})",
                            R"({"recent":[[["a"]],[0]]})", R"({"wish":[1,2]})", R"({"pid":{}})"}) {
    CAPTURE(other);
    CHECK_FALSE(decode_heartbeat(other));
  }
}
