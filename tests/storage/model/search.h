// The stepwise search: every schedule of a scenario's writers, equal states merged.
//
// A crash needs no step of its own. A process that dies changes nothing in the store, so "the writer crashed here" is
// the same as "it is never resumed": every state that the search reaches is checked as the one in which all writers
// have just died, and those in which only some have died are states on the way of the others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "world.h"

namespace holdfast::storage::model {

struct SearchOptions {
  Fault fault;
  /// Not 0: the unexplored branches are taken in an order drawn from it, so that a search which ends early has been
  /// everywhere a little.
  std::uint32_t seed = 0;
  /// Ends at the first broken promise.
  bool stop_at_first = true;
  std::uint64_t most_states = ~std::uint64_t{0};
  /// A schedule with more steps than this does not end, which is a broken promise too.
  std::size_t most_steps = 400;
};

struct SearchResult {
  std::uint64_t states = 0;
  bool complete = false;  // no state is left
  std::uint64_t transitions = 0;
  std::uint64_t ends = 0;             // states in which every writer has finished
  std::uint64_t ends_superseded = 0;  // of those, the ones where a writer had been superseded
  std::vector<std::string> broken;    // each with the schedule that leads there, one operation a line
};

SearchResult search(const Scenario& scenario, const SearchOptions& options = {});

}  // namespace holdfast::storage::model
