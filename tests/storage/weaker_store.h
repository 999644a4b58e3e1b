// A store that promises less than the one it forwards to, and loses a part of what it publishes if a test requests it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

class WeakerStore final : public Store {
 public:
  explicit WeakerStore(std::unique_ptr<Store> whole) : can(whole->capabilities()), whole_(std::move(whole)) {}

  Capabilities can;
  std::string torn;  // objects whose names end so lose their second half when they are published

  Capabilities capabilities() const override { return can; }
  std::string location() const override { return whole_->location(); }
  Status prepare() override { return whole_->prepare(); }
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t bytes) override {
    return whole_->create(name, bytes);
  }
  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override {
    const bool tears = !torn.empty() && name.ends_with(torn);
    return whole_->stage(name, tears ? bytes.substr(0, bytes.size() / 2) : bytes, durable);
  }
  Status sync_folder(const std::string& folder) override { return whole_->sync_folder(folder); }
  Result<std::vector<std::string>> list(const std::string& folder) const override { return whole_->list(folder); }
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override { return whole_->open(name); }
  Status remove(const std::string& name) override { return whole_->remove(name); }
  Status put(const std::string& name, std::string_view bytes) override { return whole_->put(name, bytes); }
  Status append(const std::string& name, std::string_view bytes) override { return whole_->append(name, bytes); }
  Result<std::size_t> remove_staged(const std::function<bool(std::string_view)>& is_over) override {
    return whole_->remove_staged(is_over);
  }
  Result<std::unique_ptr<HostLock>> lock(std::string_view holder) override { return whole_->lock(holder); }

 private:
  std::unique_ptr<Store> whole_;
};

}  // namespace holdfast::storage
