#include "stores/file/file_writer.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "start_thread.h"
#include "stores/file/file_io.h"

namespace holdfast::storage {

namespace {

// Below this size a buffered write and one sync cost less than O_DIRECT's round trips.
constexpr std::uint64_t kDirectAbove = std::uint64_t{1} << 20;

}  // namespace

void BufferPool::Free::operator()(std::byte* buffer) const { std::free(buffer); }

BufferPool::Buffer BufferPool::take() {
  {
    const std::lock_guard hold(mutex_);
    if (!idle_.empty()) {
      Buffer buffer = std::move(idle_.back());
      idle_.pop_back();
      return buffer;
    }
  }
  // Huge pages: one fault per 2 MiB instead of 512.
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(kHugePage, kBufferBytes)));
  if (buffer) ::madvise(buffer.get(), kBufferBytes, MADV_HUGEPAGE);
  return buffer;
}

void BufferPool::give_back(Buffer buffer) {
  const std::lock_guard hold(mutex_);
  if (idle_.size() < kBuffersPerWriter) idle_.push_back(std::move(buffer));
}

Result<std::unique_ptr<ObjectWriter>> FileWriter::create(FileOperations& files, const Path& path,
                                                         std::uint64_t expected_bytes, bool direct_io,
                                                         std::shared_ptr<BufferPool> pool) {
  bool direct = direct_io && expected_bytes >= kDirectAbove;
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL;
  int fd = uninterrupted([&] { return files.open(path, kFlags | (direct ? O_DIRECT : 0), 0666); });
  if (fd == -EINVAL && direct) {  // open(2): the file system lacks O_DIRECT, but may have created the file
    direct = false;
    files.unlink(path);
    fd = uninterrupted([&] { return files.open(path, kFlags, 0666); });
  }
  if (fd < 0) return status_from_errno(-fd, "create", path);
  std::unique_ptr<FileWriter> writer(new FileWriter(files, path, fd, expected_bytes, direct, std::move(pool)));
  if (expected_bytes > 0) {
    const int reserved = uninterrupted([&] { return files.allocate(fd, expected_bytes); });
    if (reserved == -ENOSPC || reserved == -EDQUOT) return no_space(files, path, expected_bytes);
    const bool cannot_reserve = reserved == -EOPNOTSUPP || reserved == -ENOSYS || reserved == -EINVAL;
    if (reserved < 0 && !cannot_reserve) return status_from_errno(-reserved, "reserve space for", path);
  }
  writer->filling_ = writer->pool_->take();
  if (!writer->filling_) return Status(StatusCode::no_space, "no memory for the write buffers of " + path.string());
  if (expected_bytes > BufferPool::kBufferBytes) {
    writer->thread_ = start_thread([raw = writer.get()] { raw->write_blocks(); });
    if (!writer->thread_.joinable()) {
      return Status(StatusCode::no_space, "cannot start a thread to write " + path.string() +
                                              ": the system allows no more threads (ulimit -u shows the limit)");
    }
  }
  return std::unique_ptr<ObjectWriter>(std::move(writer));
}

FileWriter::FileWriter(FileOperations& files, Path path, int fd, std::uint64_t expected_bytes, bool direct,
                       std::shared_ptr<BufferPool> pool)
    : files_(files),
      path_(std::move(path)),
      fd_(fd),
      expected_bytes_(expected_bytes),
      direct_(direct),
      pool_(std::move(pool)) {}

FileWriter::~FileWriter() {
  stop_thread();
  if (filling_) pool_->give_back(std::move(filling_));
  // No manifest refers to an unfinished payload, so its space is freed, which matters most on a full disk.
  const bool is_removed = !finished_ && is_still_ours();
  if (fd_ >= 0) files_.close(fd_);
  if (is_removed) files_.unlink(path_);
}

// A later session may have removed this file and begun its own of the same name, a copy of the same version.
bool FileWriter::is_still_ours() const {
  FileInfo mine, named;
  if (fd_ < 0 || files_.status_of(fd_, mine) < 0 || files_.status(path_, named) < 0) return true;
  return mine.inode == named.inode;
}

std::span<std::byte> FileWriter::buffer() { return {filling_.get() + filled_, BufferPool::kBufferBytes - filled_}; }

Status FileWriter::advance(std::size_t bytes) {
  filled_ += bytes;
  return filled_ == BufferPool::kBufferBytes ? submit() : Status();
}

Status FileWriter::finish() {
  Status status = submit();
  stop_thread();
  if (status.ok()) status = failure_;
  if (!status.ok()) return status;
  if (offset_ < expected_bytes_) {  // the reservation was larger than the object
    const int cut = uninterrupted([&] { return files_.truncate(fd_, offset_); });
    if (cut < 0) return status_from_errno(-cut, "truncate", path_);
  }
  // After a failed sync the kernel may have dropped the dirty pages, and a second sync of this descriptor could wrongly
  // succeed, so the object is void (Rebello et al., USENIX ATC 2020). An interrupted sync does not count as failed.
  const int synced = uninterrupted([&] { return files_.sync(fd_); });
  if (synced < 0) return status_from_errno(-synced, "sync", path_);
  const int closed = files_.close(std::exchange(fd_, -1));
  if (closed < 0 && closed != -EINTR) return status_from_errno(-closed, "close", path_);
  finished_ = true;
  return {};
}

Status FileWriter::submit() {
  if (filled_ == 0) return {};
  Block block{std::move(filling_), filled_, offset_};
  offset_ += filled_;
  filled_ = 0;
  if (!thread_.joinable()) {
    const Status status = write(block);
    filling_ = std::move(block.buffer);
    return status;
  }
  std::unique_lock hold(mutex_);
  waiting_.push_back(std::move(block));
  ++in_flight_;
  changed_.notify_all();
  changed_.wait(hold, [&] { return in_flight_ < BufferPool::kBuffersPerWriter; });
  filling_ = pool_->take();
  if (!filling_) return {StatusCode::no_space, "no memory for the write buffers of " + path_.string()};
  return failure_;
}

Status FileWriter::write(const Block& block) {
  std::span<const std::byte> rest(block.buffer.get(), block.bytes);
  std::uint64_t offset = block.offset;
  while (direct_ && !rest.empty()) {
    const std::size_t aligned = rest.size() / BufferPool::kAlignment * BufferPool::kAlignment;
    std::int64_t written = -EINVAL;
    if (aligned > 0 && offset % BufferPool::kAlignment == 0) {
      written = uninterrupted([&] { return files_.write(fd_, rest.data(), aligned, offset); });
    }
    if (written == -EINVAL || written == 0) {  // an unaligned tail, or the file system now refuses O_DIRECT
      const int switched = files_.set_direct(fd_, false);
      if (switched < 0) return status_from_errno(-switched, "write", path_);
      direct_ = false;
      break;
    }
    if (written == -ENOSPC || written == -EDQUOT) return no_space(files_, path_, expected_bytes_);
    if (written < 0) return status_from_errno(static_cast<int>(-written), "write", path_);
    rest = rest.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  Status status = write_fully(files_, fd_, rest, offset, path_);
  if (status.code() == StatusCode::no_space) return no_space(files_, path_, expected_bytes_);
  return status;
}

void FileWriter::write_blocks() {
  std::unique_lock hold(mutex_);
  while (true) {
    changed_.wait(hold, [&] { return !waiting_.empty() || no_more_; });
    if (waiting_.empty()) return;
    Block block = std::move(waiting_.front());
    waiting_.pop_front();
    const bool skip = !failure_.ok();
    hold.unlock();
    Status status;
    try {
      if (!skip) status = write(block);
    } catch (const std::bad_alloc&) {  // an exception that leaves the thread's function ends the process
      status = Status(StatusCode::no_space, "no memory");  // short enough for a string without an allocation
    }
    pool_->give_back(std::move(block.buffer));
    hold.lock();
    if (failure_.ok() && !status.ok()) failure_ = status;
    --in_flight_;
    changed_.notify_all();
  }
}

void FileWriter::stop_thread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard hold(mutex_);
    no_more_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

}  // namespace holdfast::storage
