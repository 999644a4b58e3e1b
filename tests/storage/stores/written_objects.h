// Objects with known bytes, written to a store as a payload is.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "catch.h"
#include "holdfast/storage/stores/store.h"

namespace written_objects {

using namespace holdfast::storage;

inline std::string pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>((i * 2654435761U) >> 13);
  return text;
}

/// Writes all of `bytes` in pieces of at most `piece` bytes.
inline Status write_object(Store& store, const std::string& name, const std::string& bytes, std::size_t piece) {
  auto writer = store.create(name, bytes.size());
  if (!writer) return writer.status();
  for (std::size_t done = 0; done < bytes.size();) {
    const auto buffer = (*writer)->buffer();
    REQUIRE(buffer.size() > 0);
    const std::size_t n = std::min({buffer.size(), bytes.size() - done, piece});
    std::memcpy(buffer.data(), bytes.data() + done, n);
    if (Status status = (*writer)->advance(n); !status.ok()) return status;
    done += n;
  }
  return (*writer)->finish();
}

}  // namespace written_objects
