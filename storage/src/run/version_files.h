// The files that versions consist of, and their removal. Steps P4 and P5 of retention, for a run's home and its
// mirrors.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/run/history.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// All payload files that these versions refer to. Empty if a manifest cannot be read, because its files are unknown.
std::optional<std::set<std::string>> live_files(const Store& store, const std::vector<VersionRef>& versions);

/// The payload files of those of these versions whose manifests can be read.
std::set<std::string> files_of(const Store& store, const std::set<Uid>& versions);

/// Removes the manifests, and makes that durable.
Status remove_manifests(Store& store, const std::set<Uid>& versions);

/// Removes those of `files` that no version of `left` refers to; none if that cannot be known now.
Status remove_unreferenced(Store& store, const std::set<std::string>& files, const std::vector<VersionRef>& left);

}  // namespace holdfast::storage
