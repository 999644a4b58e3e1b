#include "simulated_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_set>

namespace holdfast::storage::crash {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSector = 512;  // the alignment that O_DIRECT requires

std::uint64_t blocks(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

Bytes torn(const std::string& bytes, std::size_t at) {
  std::string result = bytes;
  if (at < result.size()) std::fill(result.begin() + static_cast<std::ptrdiff_t>(at), result.end(), '\0');
  return std::make_shared<const std::string>(std::move(result));
}

/// The possible contents of a file after a crash: kept, lost, torn where the unsynced part begins, in its middle, and
/// one byte before the end of its first block (or of the file, if that comes first).
std::vector<Bytes> fates(const Inode& file) {
  std::vector<Bytes> result{file.bytes};
  if (file.bytes == file.safe) return result;
  const auto add = [&result](Bytes bytes) {
    for (const Bytes& other : result) {
      if (*other == *bytes) return;
    }
    result.push_back(std::move(bytes));
  };
  add(file.safe);
  const std::string& now = *file.bytes;
  const std::size_t begin = std::min(now.size(), file.safe->size());
  add(torn(now, begin));
  add(torn(now, begin + (now.size() - begin) / 2));
  const std::size_t block_end = begin / kBlock * kBlock + kBlock - 1;
  if (!now.empty()) add(torn(now, std::max(begin, std::min(block_end, now.size() - 1))));
  return result;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t mixed = (a ^ (b >> 32) ^ (b << 32)) * 0x9E3779B97F4A7C15U + b;
  mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93U;
  return mixed ^ (mixed >> 32);
}

Digest mix(const Digest& a, const Digest& b) { return {mix(a.high, b.high), mix(a.low, b.low ^ a.high)}; }

struct DigestHash {
  std::size_t operator()(const Digest& digest) const { return static_cast<std::size_t>(digest.low); }
};

/// Walks every combination of fates and name values, reachable inodes only.
class ImageWalk {
 public:
  ImageWalk(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
            const std::function<void(const DiskContent&)>& look)
      : disk_(disk), wanted_(wanted), look_(look), chosen_(disk.inodes.size()) {
    reach(0);
    resolve(0);
  }

 private:
  struct Entry {
    const std::string* name;
    Digest name_digest;
    InodeId inode;
  };
  struct Fate {
    Bytes bytes;
    Digest digest;
  };
  /// The decisions about an inode.
  struct Chosen {
    int reached = 0;
    std::vector<Entry> names;
    std::vector<Fate> fates;  // of a file, computed at the first use
    const Fate* fate = nullptr;
    const Fate* forced = nullptr;
  };

  void reach(InodeId inode) {
    if (chosen_[inode].reached++ == 0) queue_.push_back(inode);
  }
  void leave(InodeId inode) {
    if (--chosen_[inode].reached == 0) queue_.pop_back();
  }
  const std::vector<Fate>& fates_of(InodeId id) {
    Chosen& file = chosen_[id];
    if (file.fates.empty()) {
      for (Bytes& bytes : fates(disk_.inodes[id])) {
        const Digest digest = digest_of(*bytes);
        file.fates.push_back({std::move(bytes), digest});
      }
    }
    return file.fates;
  }

  void resolve(std::size_t position) {
    if (stopped_) return;
    if (position == queue_.size()) return emit();
    const InodeId id = queue_[position];
    const Inode& inode = disk_.inodes[id];
    if (!inode.is_directory) {
      for (const Fate& fate : fates_of(id)) {
        if (chosen_[id].forced && chosen_[id].forced != &fate) continue;
        chosen_[id].fate = &fate;
        resolve(position + 1);
      }
      return;
    }
    std::vector<Choice> choices;
    for (const auto& [name, value] : inode.names) {
      if (!inode.pending.count(name)) choices.push_back({&name, digest_of(name), {value}});
    }
    for (const auto& [name, values] : inode.pending) {
      Choice& choice = choices.emplace_back(Choice{&name, digest_of(name), {}});
      for (const Inode::Value& value : values) {
        if (std::find(choice.values.begin(), choice.values.end(), value) == choice.values.end()) {
          choice.values.push_back(value);
        }
      }
      if (inode.is_hints) choice.values = {values.front(), values.back()};
    }
    if (inode.is_hints) {
      for (const std::size_t now : {0, 1}) resolve_hints(position, id, choices, now);
    } else {
      resolve_names(position, id, choices, 0);
    }
  }

  struct Choice {
    const std::string* name;
    Digest digest;
    std::vector<Inode::Value> values;
  };

  void resolve_names(std::size_t position, InodeId id, const std::vector<Choice>& choices, std::size_t next) {
    if (next == choices.size()) return resolve(position + 1);
    for (const Inode::Value& value : choices[next].values) {
      if (stopped_) return;
      if (!value) {
        resolve_names(position, id, choices, next + 1);
        continue;
      }
      chosen_[id].names.push_back({choices[next].name, choices[next].digest, *value});
      reach(*value);
      resolve_names(position, id, choices, next + 1);
      leave(*value);
      chosen_[id].names.pop_back();
    }
  }

  void resolve_hints(std::size_t position, InodeId id, const std::vector<Choice>& choices, bool now) {
    std::vector<InodeId> reached;
    for (const Choice& choice : choices) {
      const Inode::Value& value = now ? choice.values.back() : choice.values.front();
      if (!value) continue;
      chosen_[id].names.push_back({choice.name, choice.digest, *value});
      reach(*value);
      reached.push_back(*value);
      const std::vector<Fate>& all = fates_of(*value);
      chosen_[*value].forced = now || all.size() == 1 ? &all[0] : &all[1];  // kept, or lost
    }
    resolve(position + 1);
    for (auto inode = reached.rbegin(); inode != reached.rend(); ++inode) leave(*inode);
    chosen_[id].names.clear();
  }

  /// Depends on names and bytes, but not on the order of the names.
  Digest identity_of(InodeId id) const {
    Digest sum{1, 1};
    for (const Entry& entry : chosen_[id].names) {
      const bool folder = disk_.inodes[entry.inode].is_directory;
      const Digest part = mix(entry.name_digest, folder ? identity_of(entry.inode) : chosen_[entry.inode].fate->digest);
      sum.high += part.high;
      sum.low += part.low;
    }
    return mix(sum, Digest{2, 2});
  }

  void emit() {
    const Digest identity = identity_of(0);
    if (!seen_.insert(identity).second) return;
    const Visit wanted = wanted_(identity);
    stopped_ = wanted == Visit::stop;
    if (wanted != Visit::look) return;
    DiskContent image;
    image.inodes.resize(disk_.inodes.size());
    for (const InodeId id : queue_) {
      Inode& inode = image.inodes[id];
      inode.is_directory = disk_.inodes[id].is_directory;
      inode.is_hints = disk_.inodes[id].is_hints;
      if (inode.is_directory) {
        for (const Entry& entry : chosen_[id].names) inode.names[*entry.name] = entry.inode;
      } else {
        inode.bytes = inode.safe = chosen_[id].fate->bytes;
      }
    }
    look_(image);
  }

  const DiskContent& disk_;
  const std::function<Visit(const Digest&)>& wanted_;
  const std::function<void(const DiskContent&)>& look_;
  std::vector<Chosen> chosen_;
  std::vector<InodeId> queue_;
  std::unordered_set<Digest, DigestHash> seen_;
  bool stopped_ = false;
};

}  // namespace

DiskContent::DiskContent(const std::vector<Path>& folders) {
  inodes.emplace_back().is_directory = true;
  for (const Path& folder : folders) {
    InodeId at = 0;
    for (const Path& part : folder.relative_path()) {
      const auto known = inodes[at].names.find(part.string());
      if (known != inodes[at].names.end()) {
        at = known->second;
        continue;
      }
      inodes.emplace_back().is_directory = true;
      at = inodes[at].names[part.string()] = inodes.size() - 1;
    }
  }
}

std::optional<InodeId> DiskContent::find(const Path& path) const {
  InodeId at = 0;
  for (const Path& part : path.relative_path()) {
    if (part == ".") continue;
    const auto found = inodes[at].names.find(part.string());
    if (found == inodes[at].names.end()) return std::nullopt;
    at = found->second;
  }
  return at;
}

bool DiskContent::has_pending() const {
  return std::any_of(inodes.begin(), inodes.end(),
                     [](const Inode& inode) { return inode.bytes != inode.safe || !inode.pending.empty(); });
}

void for_each_image(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
                    const std::function<void(const DiskContent&)>& look) {
  ImageWalk(disk, wanted, look);
}

SimulatedDisk::Descriptor* SimulatedDisk::find_descriptor(int fd) {
  const auto found = descriptors_.find(fd);
  return found == descriptors_.end() ? nullptr : &found->second;
}

std::optional<InodeId> SimulatedDisk::parent_of(const Path& path) const {
  const std::optional<InodeId> parent = content_.find(path.parent_path());
  if (!parent || !content_.inodes[*parent].is_directory) return std::nullopt;
  return parent;
}

void SimulatedDisk::set_name(InodeId directory, const std::string& name, std::optional<InodeId> value) {
  Inode& inode = content_.inodes[directory];
  std::vector<Inode::Value>& values = inode.pending[name];
  const auto now = inode.names.find(name);
  if (values.empty()) values.push_back(now == inode.names.end() ? Inode::Value() : Inode::Value(now->second));
  values.push_back(value);
  if (value) {
    inode.names[name] = *value;
  } else {
    inode.names.erase(name);
  }
}

void SimulatedDisk::set_bytes(InodeId inode, std::string bytes) {
  content_.inodes[inode].bytes = std::make_shared<const std::string>(std::move(bytes));
}

std::uint64_t SimulatedDisk::used_bytes() const {
  std::set<InodeId> alive;
  for (const Inode& inode : content_.inodes) {
    for (const auto& [name, id] : inode.names) alive.insert(id);
  }
  for (const auto& [fd, descriptor] : descriptors_) alive.insert(descriptor.inode);
  std::uint64_t total = 0;
  for (const InodeId id : alive) {
    const Inode& inode = content_.inodes[id];
    if (!inode.is_directory) total += blocks(std::max<std::uint64_t>(inode.bytes->size(), inode.reserved));
  }
  return total;
}

bool SimulatedDisk::fits(InodeId id, std::uint64_t bytes) const {
  if (capacity == 0) return true;
  const Inode& inode = content_.inodes[id];
  const std::uint64_t now = blocks(std::max<std::uint64_t>(inode.bytes->size(), inode.reserved));
  return blocks(bytes) <= now || used_bytes() - now + blocks(bytes) <= capacity;
}

void SimulatedDisk::notify() const {
  if (changed) changed();
}

int SimulatedDisk::open(const Path& path, int flags, int) {
  std::optional<InodeId> inode = content_.find(path);
  bool change = false;
  if (inode) {
    if ((flags & O_CREAT) && (flags & O_EXCL)) return -EEXIST;
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (content_.inodes[*inode].is_directory && writes) return -EISDIR;
    if (!content_.inodes[*inode].is_directory && (flags & O_DIRECTORY)) return -ENOTDIR;
    if ((flags & O_TRUNC) && writes && !content_.inodes[*inode].bytes->empty()) {
      set_bytes(*inode, "");
      change = true;
    }
  } else {
    if (!(flags & O_CREAT)) return -ENOENT;
    const std::optional<InodeId> parent = parent_of(path);
    if (!parent) return -ENOENT;
    if (path.filename().size() > 255) return -ENAMETOOLONG;
    content_.inodes.emplace_back();
    inode = content_.inodes.size() - 1;
    set_name(*parent, path.filename().string(), inode);
    change = true;
  }
  const int fd = next_descriptor_++;
  descriptors_[fd] = {*inode, flags, (flags & O_DIRECT) != 0, path};
  if (change) notify();
  return fd;
}

int SimulatedDisk::close(int fd) {
  Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  const auto held = locks_.find(descriptor->inode);
  if (held != locks_.end() && held->second == fd) locks_.erase(held);
  descriptors_.erase(fd);
  return 0;
}

std::int64_t SimulatedDisk::read(int fd, void* into, std::size_t bytes, std::uint64_t offset) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  const Inode& inode = content_.inodes[descriptor->inode];
  if (inode.is_directory) return -EISDIR;
  if (offset >= inode.bytes->size()) return 0;
  const std::size_t count = std::min<std::size_t>(bytes, inode.bytes->size() - offset);
  std::memcpy(into, inode.bytes->data() + offset, count);
  return static_cast<std::int64_t>(count);
}

std::int64_t SimulatedDisk::write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor || (descriptor->flags & O_ACCMODE) == O_RDONLY) return -EBADF;
  if (descriptor->direct && (bytes % kSector || offset % kSector || reinterpret_cast<std::uintptr_t>(from) % kSector)) {
    return -EINVAL;
  }
  Inode& inode = content_.inodes[descriptor->inode];
  if (descriptor->flags & O_APPEND) offset = inode.bytes->size();
  if (bytes == 0) return 0;
  if (!fits(descriptor->inode, offset + bytes)) {
    // A full disk accepts only the bytes that fit.
    while (bytes > 0 && !fits(descriptor->inode, offset + bytes)) bytes -= std::min<std::size_t>(bytes, kSector);
    if (bytes == 0) return -ENOSPC;
  }
  std::string content = *inode.bytes;
  if (content.size() < offset + bytes) content.resize(offset + bytes, '\0');
  std::memcpy(content.data() + offset, from, bytes);
  set_bytes(descriptor->inode, std::move(content));
  notify();
  return static_cast<std::int64_t>(bytes);
}

int SimulatedDisk::allocate(int fd, std::uint64_t bytes) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  if (!fits(descriptor->inode, bytes)) return -ENOSPC;
  Inode& inode = content_.inodes[descriptor->inode];
  inode.reserved = std::max(inode.reserved, bytes);
  if (inode.bytes->size() < bytes) {
    std::string content = *inode.bytes;
    content.resize(bytes, '\0');
    set_bytes(descriptor->inode, std::move(content));
    notify();
  }
  return 0;
}

int SimulatedDisk::truncate(int fd, std::uint64_t bytes) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor || (descriptor->flags & O_ACCMODE) == O_RDONLY) return -EBADF;
  Inode& inode = content_.inodes[descriptor->inode];
  inode.reserved = 0;
  if (bytes == inode.bytes->size()) return 0;
  if (!fits(descriptor->inode, bytes)) return -ENOSPC;
  std::string content = *inode.bytes;
  content.resize(bytes, '\0');
  set_bytes(descriptor->inode, std::move(content));
  notify();
  return 0;
}

int SimulatedDisk::set_direct(int fd, bool direct) {
  Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  descriptor->direct = direct;
  return 0;
}

std::string SimulatedDisk::sync_name(const Descriptor& descriptor) const {
  const bool folder = content_.inodes[descriptor.inode].is_directory;
  return step_ + ": " +
         (folder ? descriptor.path.filename().string() + "/"
                 : "file in " + descriptor.path.parent_path().filename().string() + "/");
}

int SimulatedDisk::sync(int fd) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  ++syncs_;
  ++sync_rounds_;
  if (ignore_sync && ignore_sync(sync_name(*descriptor))) return 0;
  Inode& inode = content_.inodes[descriptor->inode];
  if (!inode.sync_failed) inode.safe = inode.bytes;
  inode.pending.clear();
  return 0;
}

void SimulatedDisk::fail_sync(int fd) {
  if (const Descriptor* descriptor = find_descriptor(fd)) content_.inodes[descriptor->inode].sync_failed = true;
}

int SimulatedDisk::make_directory(const Path& path) {
  if (content_.find(path)) return -EEXIST;
  const std::optional<InodeId> parent = parent_of(path);
  if (!parent) return -ENOENT;
  Inode& made = content_.inodes.emplace_back();
  made.is_directory = true;
  made.is_hints = path.filename() == "hints";
  set_name(*parent, path.filename().string(), content_.inodes.size() - 1);
  notify();
  return 0;
}

int SimulatedDisk::link(const Path& from, const Path& to) {
  if (refuse_link) return -EPERM;
  const std::optional<InodeId> inode = content_.find(from);
  const std::optional<InodeId> parent = parent_of(to);
  if (!inode || !parent) return -ENOENT;
  if (content_.find(to)) return -EEXIST;
  set_name(*parent, to.filename().string(), inode);
  notify();
  return 0;
}

int SimulatedDisk::rename_exclusive(const Path& from, const Path& to) {
  if (refuse_rename_exclusive) return -EINVAL;
  const std::optional<InodeId> inode = content_.find(from);
  const std::optional<InodeId> old_parent = parent_of(from);
  const std::optional<InodeId> new_parent = parent_of(to);
  if (!inode || !old_parent || !new_parent) return -ENOENT;
  if (content_.find(to)) return -EEXIST;
  set_name(*new_parent, to.filename().string(), inode);
  set_name(*old_parent, from.filename().string(), std::nullopt);
  notify();
  return 0;
}

int SimulatedDisk::unlink(const Path& path) {
  const std::optional<InodeId> inode = content_.find(path);
  if (!inode) return -ENOENT;
  if (content_.inodes[*inode].is_directory) return -EISDIR;
  set_name(*parent_of(path), path.filename().string(), std::nullopt);
  notify();
  return 0;
}

int SimulatedDisk::list(const Path& folder, std::vector<std::string>& names) {
  const std::optional<InodeId> inode = content_.find(folder);
  if (!inode) return -ENOENT;
  if (!content_.inodes[*inode].is_directory) return -ENOTDIR;
  for (const auto& [name, id] : content_.inodes[*inode].names) names.push_back(name);
  return 0;
}

int SimulatedDisk::status(const Path& path, FileInfo& info) {
  const std::optional<InodeId> inode = content_.find(path);
  if (!inode) return -ENOENT;
  info = {};
  info.is_directory = content_.inodes[*inode].is_directory;
  info.bytes = info.is_directory ? 0 : content_.inodes[*inode].bytes->size();
  return 0;
}

int SimulatedDisk::status_of(int fd, FileInfo& info) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  const Inode& inode = content_.inodes[descriptor->inode];
  info = {};
  info.is_directory = inode.is_directory;
  info.bytes = inode.is_directory ? 0 : inode.bytes->size();
  return 0;
}

int SimulatedDisk::mount_info(const Path& path, MountInfo& info) {
  if (!content_.find(path)) return -ENOENT;
  info.type = "simulated";
  info.sync_is_durable = true;
  const std::uint64_t used = used_bytes();
  info.free_bytes = capacity == 0 ? std::uint64_t{1} << 40 : capacity > used ? capacity - used : 0;
  return 0;
}

int SimulatedDisk::lock(int fd) {
  const Descriptor* descriptor = find_descriptor(fd);
  if (!descriptor) return -EBADF;
  const auto [held, fresh] = locks_.emplace(descriptor->inode, fd);
  return fresh || held->second == fd ? 0 : -EAGAIN;
}

void SimulatedDisk::together(const std::function<void()>& first, const std::function<void()>& second) {
  const std::size_t before = sync_rounds_;
  (second_first ? second : first)();
  const std::size_t one = sync_rounds_ - before;
  (second_first ? first : second)();
  sync_rounds_ = before + std::max(one, sync_rounds_ - before - one);
}

void SimulatedDisk::reached(std::string_view step) {
  step_ = step;
  if (at_step) at_step(step);
}

Status SimulatedDisk::perform(std::vector<Step> steps) {
  return ObservedSteps::perform(reorder ? reorder(std::move(steps)) : std::move(steps));
}

}  // namespace holdfast::storage::crash
