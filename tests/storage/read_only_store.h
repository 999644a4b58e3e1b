// A store that refuses every write. Tests derive stores from it that only readers use.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

class ReadOnlyStore : public Store {
 public:
  Status prepare() override { return refused(); }
  Result<std::unique_ptr<ObjectWriter>> create(const std::string&, std::uint64_t) override { return refused(); }
  Result<std::unique_ptr<StagedObject>> stage(const std::string&, std::string_view, bool) override { return refused(); }
  Status sync_folder(const std::string&) override { return refused(); }
  Status remove(const std::string&) override { return refused(); }
  Status put(const std::string&, std::string_view) override { return refused(); }
  Status append(const std::string&, std::string_view) override { return refused(); }
  Result<std::size_t> remove_staged(const std::function<bool(std::string_view)>&) override { return refused(); }
  Result<std::unique_ptr<HostLock>> lock(std::string_view) override { return refused(); }

 private:
  static Status refused() { return {StatusCode::read_only, "this store is only read"}; }
};

}  // namespace holdfast::storage
