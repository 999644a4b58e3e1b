// The content of a run's newest version, for tests that compare two runs.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "catch.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/file/file_store.h"

/// Tensors by digest and values as JSON of the newest version of the run in `folder`; all its digests are verified.
inline std::pair<std::map<std::string, std::string>, nlohmann::json> newest_state(
    const holdfast::storage::Path& folder) {
  using namespace holdfast::storage;
  const auto store = open_file_store(folder, {.read_only = true});
  History history;
  REQUIRE(history.refresh(*store).ok());
  REQUIRE_FALSE(history.versions().empty());
  const auto reader = VersionReader::open(*store, history.versions().back().uid);
  REQUIRE(reader.ok());
  REQUIRE(reader->verify().empty());
  std::map<std::string, std::string> tensors;
  for (const TensorEntry& tensor : reader->manifest().tensors) tensors[tensor.name] = tensor.digest.hex();
  for (const auto& [alias, name] : reader->manifest().tied) tensors[alias] = "tied to " + name;
  return {tensors, reader->manifest().values};
}
