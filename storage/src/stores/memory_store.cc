#include "holdfast/storage/stores/memory_store.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace holdfast::storage {

class MemoryImage {
 public:
  bool create(const std::string& name, std::string bytes) {
    const std::lock_guard hold(mutex_);
    return objects_.emplace(name, std::make_shared<const std::string>(std::move(bytes))).second;
  }
  void put(const std::string& name, std::string bytes) {
    const std::lock_guard hold(mutex_);
    objects_[name] = std::make_shared<const std::string>(std::move(bytes));
  }
  void append(const std::string& name, std::string_view bytes) {
    const std::lock_guard hold(mutex_);
    auto& object = objects_[name];
    object = std::make_shared<const std::string>((object ? *object : std::string()) + std::string(bytes));
  }
  std::shared_ptr<const std::string> find(const std::string& name) const {
    const std::lock_guard hold(mutex_);
    const auto found = objects_.find(name);
    return found == objects_.end() ? nullptr : found->second;
  }
  void remove(const std::string& name) {
    const std::lock_guard hold(mutex_);
    objects_.erase(name);
  }
  std::vector<std::string> list(const std::string& folder) const {
    const std::lock_guard hold(mutex_);
    std::vector<std::string> names;
    const std::string prefix = folder + "/";
    for (auto at = objects_.lower_bound(prefix); at != objects_.end() && at->first.starts_with(prefix); ++at) {
      names.push_back(at->first);
    }
    return names;
  }
  bool take_lock(std::string_view holder, std::string& present) {
    const std::lock_guard hold(mutex_);
    if (locked_) {
      present = holder_;
      return false;
    }
    locked_ = true;
    holder_ = holder;
    return true;
  }
  void release_lock() {
    const std::lock_guard hold(mutex_);
    locked_ = false;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const std::string>> objects_;
  bool locked_ = false;
  std::string holder_;
};

namespace {

constexpr std::size_t kAlignment = 4096;

Status taken(const std::string& name) {
  return {StatusCode::already_exists,
          "memory:/" + name + " exists already; objects are created once and never replaced"};
}

// Appends to a growing string; the image has the object after finish().
class MemoryWriter final : public ObjectWriter {
 public:
  MemoryWriter(std::shared_ptr<MemoryImage> image, std::string name, std::uint64_t expected)
      : image_(std::move(image)), name_(std::move(name)), memory_(kBufferBytes + kAlignment) {
    bytes_.reserve(expected);
    void* at = memory_.data();
    std::size_t space = memory_.size();
    buffer_ = static_cast<std::byte*>(std::align(kAlignment, kBufferBytes, at, space));
  }
  std::span<std::byte> buffer() override { return {buffer_, kBufferBytes}; }
  Status advance(std::size_t bytes) override {
    bytes_.append(reinterpret_cast<const char*>(buffer_), bytes);
    return {};
  }
  Status finish() override { return image_->create(name_, std::move(bytes_)) ? Status() : taken(name_); }

 private:
  static constexpr std::size_t kBufferBytes = 64 * 1024;
  std::shared_ptr<MemoryImage> image_;
  std::string name_;
  std::string bytes_;
  std::vector<std::byte> memory_;
  std::byte* buffer_ = nullptr;
};

class MemoryReader final : public ObjectReader {
 public:
  MemoryReader(std::string name, std::shared_ptr<const std::string> bytes)
      : name_(std::move(name)), bytes_(std::move(bytes)) {}
  std::uint64_t bytes() const override { return bytes_->size(); }
  Status read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > bytes_->size() || into.size() > bytes_->size() - offset) {
      return {StatusCode::incomplete, "memory:/" + name_ + " ends at byte " + std::to_string(bytes_->size()) +
                                          ", before the " + std::to_string(offset + into.size()) + " asked for"};
    }
    std::memcpy(into.data(), bytes_->data() + offset, into.size());
    return {};
  }

 private:
  std::string name_;
  std::shared_ptr<const std::string> bytes_;
};

class MemoryStaged final : public StagedObject {
 public:
  MemoryStaged(std::shared_ptr<MemoryImage> image, std::string name, std::string bytes)
      : image_(std::move(image)), name_(std::move(name)), bytes_(std::move(bytes)) {}
  Status publish() override { return image_->create(name_, bytes_) ? Status() : taken(name_); }

 private:
  std::shared_ptr<MemoryImage> image_;
  std::string name_;
  std::string bytes_;
};

class MemoryLock final : public HostLock {
 public:
  explicit MemoryLock(std::shared_ptr<MemoryImage> image) : image_(std::move(image)) {}
  ~MemoryLock() override { image_->release_lock(); }

 private:
  std::shared_ptr<MemoryImage> image_;
};

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::shared_ptr<MemoryImage> image) : image_(std::move(image)) {}

  Capabilities capabilities() const override {
    Capabilities can;
    can.create_only_enforced = can.atomic_publish = can.list_after_create = can.ranged_read = can.host_lock = true;
    return can;
  }
  std::string location() const override { return "memory:"; }
  Status prepare() override { return {}; }

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t expected_bytes) override {
    if (image_->find(name)) return taken(name);
    return std::unique_ptr<ObjectWriter>(new MemoryWriter(image_, name, expected_bytes));
  }
  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool) override {
    return std::unique_ptr<StagedObject>(new MemoryStaged(image_, name, std::string(bytes)));
  }
  Status sync_folder(const std::string&) override { return {}; }

  Result<std::vector<std::string>> list(const std::string& folder) const override { return image_->list(folder); }
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
    auto bytes = image_->find(name);
    if (!bytes) return Status(StatusCode::not_found, "memory:/" + name + " does not exist");
    return std::unique_ptr<ObjectReader>(new MemoryReader(name, std::move(bytes)));
  }
  Status remove(const std::string& name) override {
    image_->remove(name);
    return {};
  }
  Status put(const std::string& name, std::string_view bytes) override {
    image_->put(name, std::string(bytes));
    return {};
  }
  Status append(const std::string& name, std::string_view bytes) override {
    image_->append(name, bytes);
    return {};
  }
  Result<std::size_t> remove_staged(const std::function<bool(std::string_view)>&) override {
    return std::size_t{0};  // staged bytes live in their StagedObject only
  }
  Result<std::unique_ptr<HostLock>> lock(std::string_view holder) override {
    std::string present;
    if (!image_->take_lock(holder, present)) return Status(StatusCode::busy, present);
    return std::unique_ptr<HostLock>(new MemoryLock(image_));
  }

 private:
  std::shared_ptr<MemoryImage> image_;
};

}  // namespace

std::shared_ptr<MemoryImage> make_memory_image() { return std::make_shared<MemoryImage>(); }

std::unique_ptr<Store> open_memory_store(std::shared_ptr<MemoryImage> image) {
  return std::make_unique<MemoryStore>(std::move(image));
}

}  // namespace holdfast::storage
