// A byte buffer that grows without copying its contents: realloc() moves the pages of a large block, whereas a vector
// copies them each time it grows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace holdfast::detail {

class GrowingBytes {
 public:
  GrowingBytes() = default;
  ~GrowingBytes() { std::free(data_); }
  GrowingBytes(const GrowingBytes&) = delete;
  GrowingBytes& operator=(const GrowingBytes&) = delete;

  void append(const void* from, std::size_t size) {
    if (size == 0) return;
    if (capacity_ - size_ < size) grow(size);
    std::memcpy(data_ + size_, from, size);
    size_ += size;
  }

  const std::byte* data() const { return data_; }
  std::byte* data() { return data_; }
  std::size_t size() const { return size_; }

 private:
  void grow(std::size_t more) {
    const std::size_t capacity = std::max(size_ + more, 2 * capacity_);
    void* const grown = std::realloc(data_, capacity);
    if (grown == nullptr) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(grown);
    capacity_ = capacity;
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace holdfast::detail
