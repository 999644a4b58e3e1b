#include "stepped_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "holdfast/storage/stores/object_name.h"

namespace holdfast::storage::model {
namespace {

constexpr std::size_t kBufferBytes = 16 * 1024;

Status gone(const std::string& name) { return {StatusCode::not_found, "virtual:/" + name + " does not exist"}; }
Status taken(const std::string& name) { return {StatusCode::already_exists, "virtual:/" + name + " exists already"}; }

std::optional<Uid> uid_of(const std::string& name) {
  if (const auto entry = parse_entry_name(name)) return entry->uid;
  if (const auto payload = parse_payload_name(name)) return payload->uid;
  return std::nullopt;
}

}  // namespace

// Collects a payload. Its name exists from the start, as on a disk.
class SteppedWriter final : public ObjectWriter {
 public:
  SteppedWriter(std::shared_ptr<Image> image, std::string name)
      : image_(std::move(image)), name_(std::move(name)), memory_(kBufferBytes + 4096) {
    void* at = memory_.data();
    std::size_t space = memory_.size();
    buffer_ = static_cast<std::byte*>(std::align(4096, kBufferBytes, at, space));
  }
  std::span<std::byte> buffer() override { return {buffer_, kBufferBytes}; }
  Status advance(std::size_t bytes) override {
    bytes_.append(reinterpret_cast<const char*>(buffer_), bytes);
    return {};
  }
  Status finish() override {
    image_->complete(name_, std::make_shared<const std::string>(std::move(bytes_)));
    return {};
  }

 private:
  std::shared_ptr<Image> image_;
  std::string name_;
  std::vector<std::byte> memory_;
  std::byte* buffer_ = nullptr;
  std::string bytes_;
};

class SteppedReader final : public ObjectReader {
 public:
  SteppedReader(std::string name, Image::Bytes bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {}
  std::uint64_t bytes() const override { return bytes_->size(); }
  Status read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (offset > bytes_->size() || into.size() > bytes_->size() - offset) {
      return {StatusCode::incomplete, "virtual:/" + name_ + " is too short"};
    }
    std::memcpy(into.data(), bytes_->data() + offset, into.size());
    return {};
  }

 private:
  std::string name_;
  Image::Bytes bytes_;
};

class SteppedStaged final : public StagedObject {
 public:
  SteppedStaged(SteppedStore& store, std::string name, std::string staged_name, std::string_view bytes)
      : store_(store),
        name_(std::move(name)),
        staged_name_(std::move(staged_name)),
        bytes_(std::make_shared<const std::string>(bytes)) {}
  Status publish() override { return store_.publish(name_, staged_name_, bytes_); }

 private:
  SteppedStore& store_;
  std::string name_;
  std::string staged_name_;
  Image::Bytes bytes_;
};

SteppedStore::SteppedStore(std::shared_ptr<Image> image, Hooks hooks)
    : image_(std::move(image)), hooks_(std::move(hooks)) {}

Capabilities SteppedStore::capabilities() const {
  Capabilities can;
  can.create_only_enforced = can.atomic_publish = can.durable_put = can.list_after_create = can.ranged_read = true;
  can.host_lock = true;
  return can;
}

void SteppedStore::check_alive() const {
  if (dead_) throw WriterDied();
}

void SteppedStore::stop_before(std::string_view operation, std::string_view name) const {
  check_alive();
  if (hooks_.before) hooks_.before(std::string(operation) + " " + std::string(name));
}

void SteppedStore::learn(std::string_view operation, std::string_view name, std::string_view answer) const {
  observed_.then(std::string(operation) + ' ' + std::string(name) + ' ' + std::string(answer));
}

// A number that a listing has shown must never be drawn again, because the new object would have the number of an
// acknowledged one.
void SteppedStore::check_number(const std::string& name) const {
  const auto uid = uid_of(name);
  if (!uid || !own_.insert(uid->text()).second) return;
  if (uid->seq <= highest_seen_) {
    wrongs_.push_back(name + " has a number that is not above " + std::to_string(highest_seen_) + ", seen before");
  }
}

Result<std::unique_ptr<ObjectWriter>> SteppedStore::create(const std::string& name, std::uint64_t) {
  stop_before("create", name);
  check_number(name);
  if (!image_->create(name, std::make_shared<const std::string>())) {
    learn("create", name, "taken");
    return taken(name);
  }
  learn("create", name, "ok");
  return std::unique_ptr<ObjectWriter>(std::make_unique<SteppedWriter>(image_, name));
}

Result<std::unique_ptr<StagedObject>> SteppedStore::stage(const std::string& name, std::string_view bytes, bool) {
  check_alive();
  if (may_meet(Meeting::removes_staged)) stop_before("stage", name);
  const std::string staged_name = name + ".tmp";
  image_->stage(staged_name);
  return std::unique_ptr<StagedObject>(std::make_unique<SteppedStaged>(*this, name, staged_name, bytes));
}

Status SteppedStore::publish(const std::string& name, const std::string& staged_name, Image::Bytes bytes) {
  stop_before("publish", name);
  check_number(name);
  Status status;
  if (!image_->unstage(staged_name)) {
    status = gone(staged_name);
  } else if (!image_->create(name, std::move(bytes))) {
    status = taken(name);
  }
  learn("publish", name, to_string(status.code()));
  return status;
}

Result<std::vector<std::string>> SteppedStore::list(const std::string& folder) const {
  stop_before("list", folder);
  auto names = image_->list(folder);
  std::string answer;
  for (const std::string& name : names) {
    answer += name + '\n';
    if (const auto uid = uid_of(name)) highest_seen_ = std::max(highest_seen_, uid->seq);
  }
  learn("list", folder, answer);
  return names;
}

Result<std::unique_ptr<ObjectReader>> SteppedStore::open(const std::string& name) const {
  check_alive();
  const bool stays = is_permanent_entry(name) || !may_meet(Meeting::removes_versions);
  if (!stays || !image_->find(name)) stop_before("open", name);
  auto bytes = image_->find(name);
  if (!bytes) {
    learn("open", name, "gone");
    return gone(name);
  }
  learn("open", name, *bytes);
  return std::unique_ptr<ObjectReader>(std::make_unique<SteppedReader>(name, std::move(bytes)));
}

Status SteppedStore::remove(const std::string& name) {
  stop_before("remove", name);
  image_->remove(name);
  learn("remove", name, "ok");
  return {};
}

Result<std::size_t> SteppedStore::remove_staged(const std::function<bool(std::string_view session)>& is_over) {
  stop_before("remove_staged", "");
  std::size_t removed = 0;
  for (const std::string& name : std::set<std::string>(image_->staged())) {
    const auto entry = parse_entry_name(name.substr(0, name.size() - std::string_view(".tmp").size()));
    if (entry && is_over(entry->uid.session)) {
      image_->unstage(name);
      ++removed;
    }
  }
  learn("remove_staged", "", std::to_string(removed));
  return removed;
}

Result<std::unique_ptr<HostLock>> SteppedStore::lock(std::string_view) {
  return std::unique_ptr<HostLock>(std::make_unique<HostLock>());
}

}  // namespace holdfast::storage::model
