// A store over bytes that a test may change in place, like a failing disk. Readers see a change at once.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/read_only_store.h"

namespace holdfast::storage {

class ImageStore : public ReadOnlyStore {
 public:
  /// Copies every object of journal/ and data/.
  explicit ImageStore(const Store& from) {
    for (const char* folder : {"journal", "data"}) {
      const auto names = from.list(folder);
      for (const std::string& name : *names) objects[name] = *from.get(name);
    }
  }

  std::map<std::string, std::string> objects;

  Capabilities capabilities() const override { return {}; }
  std::string location() const override { return "image:"; }
  Result<std::vector<std::string>> list(const std::string& folder) const override {
    std::vector<std::string> names;
    for (const auto& [name, bytes] : objects) {
      if (name.rfind(folder + "/", 0) == 0) names.push_back(name);
    }
    return names;
  }
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
    const auto found = objects.find(name);
    if (found == objects.end()) return Status(StatusCode::not_found, name + " does not exist");
    return std::unique_ptr<ObjectReader>(std::make_unique<Reader>(found->second));
  }

 private:
  class Reader final : public ObjectReader {
   public:
    explicit Reader(const std::string& bytes) : bytes_(bytes) {}
    std::uint64_t bytes() const override { return bytes_.size(); }
    Status read(std::uint64_t offset, std::span<std::byte> into) const override {
      if (offset > bytes_.size() || into.size() > bytes_.size() - offset) {
        return {StatusCode::incomplete, "the object ends at byte " + std::to_string(bytes_.size())};
      }
      if (!into.empty()) std::memcpy(into.data(), bytes_.data() + offset, into.size());
      return {};
    }

   private:
    const std::string& bytes_;
  };
};

}  // namespace holdfast::storage
