// Streams one large file at the disk's speed: aligned O_DIRECT writes of 8 MiB from reused buffers, on a second thread
// while the caller's thread fills and hashes the next buffer. Private to the file driver.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// Write buffers kept between saves, because the first touch of fresh memory costs more than the copy into it.
/// Any thread.
class BufferPool {
 public:
  static constexpr std::size_t kBufferBytes = std::size_t{8} << 20;
  static constexpr std::size_t kAlignment = 4096;
  static constexpr std::size_t kBuffersPerWriter = 4;  // 32 MiB: one is filled, the others wait for the disk

  struct Free {
    void operator()(std::byte* buffer) const;
  };
  using Buffer = std::unique_ptr<std::byte, Free>;

  BufferPool() { idle_.reserve(kBuffersPerWriter); }  // so that give_back() never allocates
  Buffer take();
  void give_back(Buffer buffer);

 private:
  std::mutex mutex_;
  std::vector<Buffer> idle_;
};

class FileWriter final : public ObjectWriter {
 public:
  /// Creates the file (O_EXCL) and reserves `expected_bytes`.
  static Result<std::unique_ptr<ObjectWriter>> create(FileOperations& files, const Path& path,
                                                      std::uint64_t expected_bytes, bool direct_io,
                                                      std::shared_ptr<BufferPool> pool);
  ~FileWriter() override;

  std::span<std::byte> buffer() override;
  Status advance(std::size_t bytes) override;
  Status finish() override;

 private:
  struct Block {
    BufferPool::Buffer buffer;
    std::size_t bytes = 0;
    std::uint64_t offset = 0;
  };

  bool is_still_ours() const;
  FileWriter(FileOperations& files, Path path, int fd, std::uint64_t expected_bytes, bool direct,
             std::shared_ptr<BufferPool> pool);
  Status submit();
  Status write(const Block& block);
  void write_blocks();
  void stop_thread();

  FileOperations& files_;
  const Path path_;
  int fd_;
  const std::uint64_t expected_bytes_;
  bool direct_;  // belongs to the writing thread while it runs
  const std::shared_ptr<BufferPool> pool_;

  BufferPool::Buffer filling_;
  std::size_t filled_ = 0;
  std::uint64_t offset_ = 0;
  bool finished_ = false;

  std::thread thread_;  // only for files of more than one buffer
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Block> waiting_;
  std::size_t in_flight_ = 0;
  bool no_more_ = false;
  Status failure_;
};

}  // namespace holdfast::storage
