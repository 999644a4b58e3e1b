#include "simulated_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace holdfast::storage::crash {
namespace {

constexpr std::uint64_t kSector = 512;  // the alignment that O_DIRECT requires

std::uint64_t blocks(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

}  // namespace

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
