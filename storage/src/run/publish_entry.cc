#include "run/publish_entry.h"

#include <utility>

namespace holdfast::storage {
namespace {

// Each session removes staged files once, at its start, so only this many starts between stage() and publish() could
// make all attempts fail.
constexpr int kStagings = 16;

/// Reads an entry back if the store may have published only a part of it.
Status check_whole(const Store& store, const std::string& name, const std::string& bytes) {
  if (store.capabilities().atomic_publish) return {};
  const auto found = store.get(name);
  if (!found) return found.status();
  if (*found == bytes) return {};
  return {StatusCode::corrupt, store.location() + "/" + name +
                                   " does not hold the bytes that were written to it; choose another folder with "
                                   "--holdfast.dir"};
}

}  // namespace

Status publish_staged(Store& store, std::unique_ptr<StagedObject> staged, const std::string& name,
                      const std::string& bytes, bool durable) {
  Status status = staged->publish();
  for (int i = 1; i < kStagings && status.code() == StatusCode::not_found; ++i) {
    auto again = store.stage(name, bytes, durable);
    if (!again) return again.status();
    status = (*again)->publish();
  }
  return status.ok() && durable ? check_whole(store, name, bytes) : status;
}

Status publish_entry(Store& store, const std::string& name, const std::string& bytes, bool durable) {
  auto staged = store.stage(name, bytes, durable);
  if (!staged) return staged.status();
  if (Status status = publish_staged(store, std::move(*staged), name, bytes, durable); !status.ok()) return status;
  return durable ? store.sync_folder("journal") : Status();
}

}  // namespace holdfast::storage
