// A store that promises less than the one it forwards to, and loses a part of what it publishes if a test requests it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "storage/forwarding_store.h"

namespace holdfast::storage {

class WeakerStore final : public ForwardingStore {
 public:
  explicit WeakerStore(std::unique_ptr<Store> whole)
      : ForwardingStore(std::move(whole)), can(ForwardingStore::capabilities()) {}

  Capabilities can;
  std::string torn;  // objects whose names end so lose their second half when they are published

  Capabilities capabilities() const override { return can; }
  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override {
    const bool tears = !torn.empty() && name.ends_with(torn);
    return ForwardingStore::stage(name, tears ? bytes.substr(0, bytes.size() / 2) : bytes, durable);
  }
};

}  // namespace holdfast::storage
