// Runs on disk, opened for reading only: where they are, what their journal contains, and the error for a path that
// leads to none.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::tools {

struct RunFolder {
  storage::Path path;  // as the user wrote it
  std::string name;
  std::unique_ptr<storage::Store> store;
  storage::History history;
};

/// What a path leads to.
enum class Place { missing, file, folder, run };
/// Errors: the path cannot be reached.
storage::Result<Place> place_of(const storage::Path& path);

/// REQUIRES: place_of(path) is Place::run.
storage::Result<std::shared_ptr<const RunFolder>> open_run(const storage::Path& path);
/// The runs directly in a folder, by name.
storage::Result<std::vector<storage::Path>> runs_in(const storage::Path& folder);

/// The total length of the run's objects.
std::uint64_t bytes_on_disk(const storage::Store& run);

/// Why `path`, which is missing or a folder without a journal, is not a run, and what was probably meant.
storage::Status not_a_run(const storage::Path& path);

/// What the program that ran last would resume from; `failed` are versions known to fail to load.
storage::Result<storage::Choice> choose(const RunFolder& run, const std::map<storage::Uid, storage::Status>& failed);

/// "42" where no other version of the run has that number, else "42-7f3a".
std::string label_of(const RunFolder& run, const storage::Uid& uid);

/// "version 42 of run mnist".
std::string title_of(const RunFolder& run, const storage::Uid& uid);

/// The last name in a path, whatever slashes and dots follow it.
std::string name_of(const storage::Path& path);
/// Normalized, and absolute where the working directory still exists; unlike boost's absolute(), it never throws.
storage::Path absolute_of(const storage::Path& path);

}  // namespace holdfast::tools
