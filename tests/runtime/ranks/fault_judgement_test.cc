#include "ranks/fault_judgement.h"

#include "catch.h"
#include "message_parts.h"
#include "peers.h"

namespace {

using namespace holdfast;
using namespace peers;

std::optional<Fault> judge(int self, const std::vector<Peer>& peers) {
  return holdfast::judge(self, peers, milliseconds(3000));
}

std::string text_of(const std::optional<Fault>& fault) { return fault ? fault->text : ""; }

}  // namespace

TEST_CASE("slow_ranks_are_not_faults") {
  const auto waiting = peer(State::inside, 5, "barrier", milliseconds(100), std::chrono::hours(3));
  CHECK_FALSE(judge(0, {waiting, peer(State::running, 4, "barrier", milliseconds(2900))}));
  CHECK_FALSE(judge(0, {waiting, peer(State::running, 4, "barrier", milliseconds(14000))}, milliseconds(15000)));
  CHECK_FALSE(judge(0, {waiting, peer(State::inside, 5, "barrier")}));
  // The peer is one operation ahead: it has just left ours.
  CHECK_FALSE(judge(0, {waiting, peer(State::inside, 6, "save")}));
  CHECK_FALSE(judge(0, {peer(State::running, 5, "barrier"), peer(State::inside, 6, "save")}));
  // A contradiction seen only once may compare one rank's new heartbeat with another's old one.
  CHECK_FALSE(judge(0, {waiting, peer(State::inside, 5, "save", milliseconds(100), milliseconds(300))}));
}

TEST_CASE("silence_closed_connections_and_failures_are_faults_with_rank_and_both_call_sites") {
  const auto own = peer(State::inside, 5, "barrier");
  const auto silent = judge(0, {own, peer(State::running, 4, "step", milliseconds(3100))});
  REQUIRE(silent);
  CHECK(silent->rank == 1);
  CHECK(lacking(silent->text, {"rank 1 (pid 7 on host)", "3 s", "--holdfast.silence", "step at step.cc:1", "rank 0",
                               "barrier at barrier.cc:1"}) == "");

  auto gone = peer(State::inside, 5, "save");
  gone.unreachable = true;
  CHECK(contains(text_of(judge(1, {gone, own})), "rank 0 (pid 7 on host) is gone"));

  const auto threw = text_of(judge(0, {own, failed(1, "rank 1 threw: no disk")}));
  CHECK(threw.starts_with("rank 1 threw: no disk; "));
  CHECK(lacking(threw, {"step at step.cc:1", "rank 0", "barrier at barrier.cc:1"}) == "");
}

TEST_CASE("the_rank_that_failed_first_is_named_by_those_that_fail_because_of_it") {
  // Rank 1 stopped because of rank 2, whose own report takes precedence over all that is wrong by now.
  const auto own = peer(State::inside, 5, "barrier");
  const auto fault = judge(0, {own, failed(2, "heard of rank 2"), failed(2, "the cause"),
                               peer(State::running, 4, "step", milliseconds(9000))});
  REQUIRE(fault);
  CHECK(fault->rank == 2);
  CHECK(fault->text.starts_with("the cause; "));
  CHECK(lacking(fault->text, {"step at step.cc:1"}) == "");
  // If only the rank that heard of it can still be read, its report is used.
  const auto heard = judge(0, {own, failed(2, "heard of rank 2"), peer(State::running, 4, "step", milliseconds(9000))});
  REQUIRE(heard);
  CHECK(heard->rank == 2);
  CHECK(heard->text == "heard of rank 2");
}

TEST_CASE("two_ranks_in_different_operations_report_the_same_divergence") {
  const auto a = peer(State::inside, 5, "barrier"), b = peer(State::inside, 5, "backward");
  const auto seen_by_a = judge(0, {a, b}), seen_by_b = judge(1, {a, b});
  REQUIRE(seen_by_a);
  REQUIRE(seen_by_b);
  CHECK(seen_by_a->text == seen_by_b->text);
  CHECK(lacking(seen_by_a->text,
                {"rank 0 waits in barrier at barrier.cc:1", "rank 1 waits in backward at backward.cc:1"}) == "");
}

TEST_CASE("earlier_calls_of_a_rank_that_ran_ahead_are_compared") {
  Peer ahead, behind;
  for (const char* name : {"barrier", "backward", "backward", "broadcast of buffers", "backward"}) {
    ahead.heartbeat.enter({name, "loop.cc:1"});
  }
  for (const char* name : {"barrier", "backward", "barrier"}) behind.heartbeat.enter({name, "loop.cc:2"});
  behind.heartbeat.state = State::inside;
  behind.unchanged = milliseconds(700);
  for (const auto state : {State::running, State::inside}) {
    ahead.heartbeat.state = state;
    const auto seen_by_ahead = judge(0, {ahead, behind}), seen_by_behind = judge(1, {ahead, behind});
    REQUIRE(seen_by_ahead);
    REQUIRE(seen_by_behind);
    CHECK(seen_by_ahead->text == seen_by_behind->text);
    CHECK(lacking(seen_by_ahead->text, {"operation 3", "rank 0 called backward at loop.cc:1",
                                        "rank 1 waits in barrier at loop.cc:2"}) == "");
  }
  // The result is unchanged after encoding and decoding, as through the store.
  ahead.heartbeat = *decode_heartbeat(encode(ahead.heartbeat));
  behind.heartbeat = *decode_heartbeat(encode(behind.heartbeat));
  CHECK(judge(0, {ahead, behind}));

  // It has just arrived there: its heartbeat may be old.
  behind.unchanged = milliseconds(300);
  CHECK_FALSE(judge(0, {ahead, behind}));
  behind.unchanged = milliseconds(3000);
  // It waits for rank 0's grant to start a step. This is not an operation, so the other one need not call anything.
  behind.heartbeat.entered = 2;
  CHECK_FALSE(judge(0, {ahead, behind}));
  // The other one has made the same call, and has finished it.
  behind.heartbeat.entered = 1;
  behind.heartbeat.enter({"backward", "loop.cc:2"});
  CHECK_FALSE(judge(0, {ahead, behind}));
  // It was so long ago that the heartbeats no longer contain it.
  for (std::size_t i = 0; i < kRecent + 5; ++i) ahead.heartbeat.enter({"backward", "loop.cc:1"});
  behind.heartbeat.enter({"barrier", "loop.cc:2"});
  CHECK(ahead.heartbeat.recent.size() == kRecent);
  CHECK_FALSE(judge(0, {ahead, behind}));
}

TEST_CASE("the_ranks_that_others_wait_for_are_named") {
  const auto own = peer(State::inside, 5, "barrier");
  const auto third = waiting_for(0, {own, peer(State::inside, 5, "barrier"), peer(State::running, 3, "step")});
  CHECK(lacking(third, {"rank 2", "step at step.cc:1"}) == "");
  CHECK(find_part(third, "rank 1") == std::string::npos);
  CHECK(waiting_for(0, {own, peer(State::inside, 5, "barrier")}).empty());
  // The lowest rank that waits reports it.
  const std::vector<Peer> main_is_slow{peer(State::running, 3, "step"), own, own};
  CHECK(lacking(waiting_for(1, main_is_slow), {"rank 0", "step at step.cc:1"}) == "");
  CHECK(waiting_for(2, main_is_slow).empty());
}
