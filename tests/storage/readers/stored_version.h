// A version of one rank as bytes that a test may change, and the names of its two objects.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/image_store.h"
#include "storage/sample_version.h"

namespace stored_version {

using namespace holdfast::storage;

inline const Uid kUid = sample_version::uid_of(42);
inline const std::string kPayload = payload_name({kUid, 0, 1});
inline const std::string kManifest = entry_name(kUid, EntryKind::save);

inline ImageStore image_of(const std::vector<sample_version::Tensor>& tensors) {
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  REQUIRE(sample_version::publish(*store, kUid, tensors));
  return ImageStore(*store);
}

}  // namespace stored_version
