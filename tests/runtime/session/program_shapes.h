// Training programs of common shapes. Each writes what it computed to a trace, and ends by SIGKILL at the n-th word
// that it writes.
#pragma once

#include <vector>

#include "loop_shapes.h"
#include "object_shapes.h"
#include "program_trace.h"

namespace shapes {

struct Shape {
  const char* name;
  int (*train)(Session&, Trace&);
  bool keeps_layout = true;  // of its values, in every start
};

inline const std::vector<Shape>& all() {
  static const std::vector<Shape> shapes = {
      {"collect_and_train", collect_and_train},
      {"loaders_in_rounds", loaders_in_rounds},
      {"epochs_with_bodies", epochs_with_bodies},
      {"left_and_followed", left_and_followed},
      {"function_that_returned", function_that_returned},
      {"replaced_objects", replaced_objects},
      {"flags_that_change", flags_that_change},
      {"two_phases", two_phases},
      {"growing_parameters", growing_parameters},
      {"groups_that_join_and_move", groups_that_join_and_move, false},
      {"agent_with_replay", agent_with_replay},
      {"epochs_over_a_vector", epochs_over_a_vector},
      {"while_next", while_next},
      {"own_order", own_order},
  };
  return shapes;
}

}  // namespace shapes
