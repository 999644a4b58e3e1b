// The stepwise search: every schedule of a scenario's writers, equal states merged.
//
// A crash does not need its own step. A process that dies changes nothing in the store, so "the writer crashed here" is
// the same as "it is never resumed". Every state that the search reaches is checked as if all writers had just died.
// The states in which only some have died are also reached, as states on the way of the other writers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "world.h"

namespace holdfast::storage::model {

struct SearchOptions {
  Fault fault;
  /// If not 0, the unexplored branches are taken in a random order with this seed, so that a search that ends early has
  /// covered all regions a little.
  std::uint32_t seed = 0;
  /// Ends at the first broken promise.
  bool stop_at_first = true;
  std::uint64_t most_states = ~std::uint64_t{0};
  /// A schedule with more steps than this counts as endless, which is also a broken promise.
  std::size_t most_steps = 400;
};

struct SearchResult {
  std::uint64_t states = 0;
  bool complete = false;  // all states were explored
  std::uint64_t transitions = 0;
  std::uint64_t ends = 0;             // states in which every writer has finished
  std::uint64_t ends_superseded = 0;  // of those, the ones where a writer had been superseded
  std::vector<std::string> broken;    // each with the schedule that leads there, one operation a line
};

SearchResult search(const Scenario& scenario, const SearchOptions& options = {});

}  // namespace holdfast::storage::model
