#include "readers/tensor_reading.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "start_thread.h"

namespace holdfast::storage {
namespace {

/// Calls `run(tensor_offset, bytes)` for each stretch of a box that is contiguous in the tensor, in the box's order.
template <class Run>
Status for_each_run(const TensorEntry& tensor, const TensorPart& part, const Run& run) {
  const std::size_t dims = tensor.shape.size();
  const std::uint64_t element = element_size(tensor.dtype);
  // The box covers the dimensions from `inner` on completely, so its extent in the dimension before is contiguous.
  std::size_t inner = dims;
  while (inner > 0 && part.extent[inner - 1] == tensor.shape[inner - 1]) --inner;
  const std::size_t outer = inner > 0 ? inner - 1 : 0;
  std::vector<std::uint64_t> stride(dims, element);
  for (std::size_t i = dims; i-- > 1;) stride[i - 1] = stride[i] * static_cast<std::uint64_t>(tensor.shape[i]);
  const std::uint64_t bytes = static_cast<std::uint64_t>(part.extent[outer]) * stride[outer];

  std::vector<std::int64_t> index(outer, 0);
  while (true) {
    std::uint64_t at = static_cast<std::uint64_t>(part.offset[outer]) * stride[outer];
    for (std::size_t i = 0; i < outer; ++i) at += static_cast<std::uint64_t>(part.offset[i] + index[i]) * stride[i];
    if (Status status = run(at, bytes); !status) return status;
    std::size_t i = outer;
    while (i > 0 && ++index[i - 1] == part.extent[i - 1]) index[--i] = 0;
    if (i == 0) return {};
  }
}

/// Gathers a tensor from its boxes. Rows of a box are read through a buffer, because a row may have only a few bytes.
Status gather(const Files& files, const TensorEntry& tensor, std::span<std::byte> into) {
  std::vector<std::byte> buffer;
  for (const TensorPart& part : tensor.parts) {
    if (part.begin == part.end) continue;
    const ObjectReader& file = *files[part.file];
    if (part.offset.empty()) {
      if (Status status = file.read(part.begin, into); !status) return status;
      continue;
    }
    std::uint64_t next = part.begin;  // offset in the file
    std::size_t used = 0;             // offset in the buffer
    buffer.clear();
    const auto run = [&](std::uint64_t at, std::uint64_t bytes) -> Status {
      while (bytes > 0) {
        if (used == buffer.size()) {
          buffer.resize(std::min(kReadPieceBytes, part.end - next));
          used = 0;
          if (Status status = file.read(next, buffer); !status) return status;
          next += buffer.size();
        }
        const std::size_t piece = std::min<std::uint64_t>(bytes, buffer.size() - used);
        std::memcpy(into.data() + at, buffer.data() + used, piece);
        used += piece;
        at += piece;
        bytes -= piece;
      }
      return {};
    };
    if (Status status = for_each_run(tensor, part, run); !status) return status;
  }
  return {};
}

/// Reads a contiguous range piece by piece and calls `each` on every piece, in order. With
/// `read_ahead`, another thread reads while `each` runs.
template <class Each>
Status read_range(const ObjectReader& file, std::uint64_t begin, std::span<std::byte> into, bool read_ahead,
                  const Each& each) {
  const auto piece_at = [&](std::uint64_t done) {
    return into.subspan(done, std::min<std::uint64_t>(kReadPieceBytes, into.size() - done));
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t arrived = 0;
  Status status;  // not ok: nothing more will arrive
  std::thread reader;
  if (read_ahead) {
    reader = start_thread([&] {
      for (std::uint64_t done = 0; done < into.size();) {
        const std::span<std::byte> piece = piece_at(done);
        Status read;
        try {
          read = file.read(begin + done, piece);
        } catch (const std::bad_alloc&) {  // an exception that leaves the thread's function ends the process
          read = Status(StatusCode::unreadable, "no memory");  // short enough for a string without an allocation
        }
        done += piece.size();
        const std::lock_guard lock(mutex);
        if (read) {
          arrived = done;
        } else {
          status = std::move(read);
        }
        changed.notify_one();
        if (!status) return;
      }
    });
  }
  for (std::uint64_t done = 0; done < into.size();) {
    const std::span<std::byte> piece = piece_at(done);
    if (reader.joinable()) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return arrived > done || !status; });
    } else {
      status = file.read(begin + done, piece);
    }
    if (!status) break;
    each(piece);
    done += piece.size();
  }
  if (reader.joinable()) reader.join();
  return status;
}

}  // namespace

/// Reads one tensor and, with `digest`, computes its digest on the way.
Status read_tensor(const Files& files, const TensorEntry& tensor, std::span<std::byte> into, bool read_ahead,
                   Digest* digest) {
  if (!is_whole(tensor)) {
    if (Status status = gather(files, tensor, into); !status) return status;
    if (digest) *digest = digest_of(std::span<const std::byte>(into));
    return {};
  }
  const TensorPart& part = tensor.parts[0];
  const ObjectReader& file = *files[part.file];
  if (!digest) return file.read(part.begin, into);
  if (into.size() <= kReadPieceBytes) {
    if (Status status = file.read(part.begin, into); !status) return status;
    *digest = digest_of(std::span<const std::byte>(into));
    return {};
  }
  DigestStream stream;
  Status status =
      read_range(file, part.begin, into, read_ahead, [&](std::span<const std::byte> piece) { stream.update(piece); });
  if (status) *digest = stream.finish();
  return status;
}

}  // namespace holdfast::storage
