// The runs that the model explores completely. Within one epoch sessions are ordered by their names, so if the two
// writers differ there is a scenario for each order.
#pragma once

#include <vector>

#include "world.h"

namespace holdfast::storage::model {

/// Small enough to explore in about a second.
std::vector<Scenario> small_scenarios();
/// Two writers: two saves each, retention, orphan removal, a deliberate rewind.
std::vector<Scenario> two_writer_scenarios();
/// Three writers with one save each.
std::vector<Scenario> three_writer_scenarios();

}  // namespace holdfast::storage::model
