#include "checkpoint/held_state.h"

#include <cstring>
#include <memory>
#include <new>

namespace holdfast {

void copy_bytes(Snapshot& captured, bool all) {
  if (!all) {
    std::erase_if(captured.tensors, [&](const auto& source) { return !captured.may_differ.contains(source.name); });
  }
  for (storage::TensorSource& source : captured.tensors) {
    const std::size_t size = source.bytes();
    const std::shared_ptr<std::byte[]> bytes(new std::byte[size]);  // not zeroed first
    source.copy(0, {bytes.get(), size});
    source.copy = [bytes](std::uint64_t offset, std::span<std::byte> into) {
      std::memcpy(into.data(), bytes.get() + offset, into.size());
    };
  }
}

}  // namespace holdfast
