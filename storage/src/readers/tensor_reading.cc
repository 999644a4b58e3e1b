#include "readers/tensor_reading.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <utility>

#include "start_thread.h"

namespace holdfast::storage {
namespace {

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
      if (arrived <= done) break;
    } else {
      status = file.read(begin + done, piece);
      if (!status) break;
    }
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
    if (Status status = read_tensor_range(files, tensor, 0, into); !status) return status;
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
