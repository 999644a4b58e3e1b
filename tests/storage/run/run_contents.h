// What a run holds, for tests of its writer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "catch.h"
#include "storage/run_fixture.h"

namespace run_fixture {

inline std::vector<std::uint64_t> steps_of(const Store& store) {
  History history;
  REQUIRE(history.refresh(store).ok());
  std::vector<std::uint64_t> steps;
  for (const VersionRef& version : history.versions()) {
    const auto reader = VersionReader::open(store, version.uid);
    REQUIRE(reader.ok());
    steps.push_back(*read_step(*reader));
  }
  return steps;
}

/// Replaces one byte of an object, like a failing disk.
inline void damage(Store& store, const std::string& name, std::size_t at) {
  std::string bytes = *store.get(name);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  REQUIRE(store.put(name, bytes).ok());
}

inline std::string payload_of(const Uid& uid) { return payload_name({uid, 0, 1}); }

}  // namespace run_fixture
