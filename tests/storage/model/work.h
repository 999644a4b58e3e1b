// What the model's writers save: the list of all saves before, so that a version shows whose work it holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "holdfast/storage/run/run_writer.h"
#include "image.h"

namespace holdfast::storage::model {

bool holds(const Work& work, std::uint32_t item);

/// The work of all versions of a place that verify and are not about to be removed.
std::vector<Work> works_in(const Store& store);
bool any_holds(const std::vector<Work>& works, std::uint32_t item);

/// The request with which `session` of the model opens the run.
OpenRequest request_of(const std::string& session, StepRunner& steps);
/// The request of this process, for tests of real ones.
OpenRequest request_of_process(const std::string& session);
/// Opens the run and loads its work.
Result<std::unique_ptr<RunWriter>> open_work(Store& store, OpenRequest request, Work& work);
/// Appends a save's number to work and saves it. The number is `session`'s first digit and how many it has saved.
Result<SavedVersion> save_work(RunWriter& hold, Work& work, std::uint32_t item);

}  // namespace holdfast::storage::model
