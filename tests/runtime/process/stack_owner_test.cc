#include "process/stack_owner.h"

#include <functional>
#include <memory>
#include <thread>

#include "catch.h"

namespace {

using namespace holdfast;

[[gnu::noinline]] std::optional<StackOwner> owner_of_a_local(const std::function<void(const StackOwner&)>& meanwhile) {
  volatile double local = 1;
  const auto owner = owner_of(const_cast<const double*>(&local));
  if (owner) meanwhile(*owner);
  return owner;
}

// Its frame occupies the place of the frame of owner_of_a_local.
[[gnu::noinline]] bool returned_as_seen_from_another_function(const StackOwner& owner) {
  volatile double locals[16] = {};
  return has_returned(owner) && locals[3] == 0;
}

}  // namespace

TEST_CASE("a_variables_function_is_known_to_run_and_to_have_returned") {
  bool runs = false;
  const auto owner = owner_of_a_local([&](const StackOwner& seen) { runs = !has_returned(seen); });
  REQUIRE(owner);
  CHECK(runs);
  CHECK(has_returned(*owner));
  CHECK(returned_as_seen_from_another_function(*owner));
  int mine = 0;
  const auto here = owner_of(&mine);
  REQUIRE(here);
  CHECK_FALSE(has_returned(*here));
  CHECK_FALSE([&] { return has_returned(*here); }());
}

TEST_CASE("an_object_outside_this_threads_stack_has_no_owner") {
  static int fixed = 0;
  CHECK_FALSE(owner_of(&fixed));
  const auto heap = std::make_unique<int>(0);
  CHECK_FALSE(owner_of(heap.get()));
  int mine = 0;
  std::optional<StackOwner> from_there;
  std::thread([&] { from_there = owner_of(&mine); }).join();
  CHECK_FALSE(from_there);
}
