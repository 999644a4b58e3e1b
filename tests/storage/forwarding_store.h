// A store that forwards to another one, for tests that change some of its calls.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

class ForwardingStore : public Store {
 public:
  explicit ForwardingStore(std::unique_ptr<Store> whole) : whole_(std::move(whole)) {}

  Capabilities capabilities() const override { return whole_->capabilities(); }
  std::string location() const override { return whole_->location(); }
  Status prepare() override { return whole_->prepare(); }
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t bytes) override {
    return whole_->create(name, bytes);
  }
  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override {
    return whole_->stage(name, bytes, durable);
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
