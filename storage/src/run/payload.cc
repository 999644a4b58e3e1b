#include "holdfast/storage/run/payload.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "holdfast/storage/formats/non_finite.h"
#include "holdfast/storage/formats/safetensors.h"

namespace holdfast::storage {
namespace {

// A piece is copied, then hashed for its tensor and for the file while the processor's second-level cache holds it.
constexpr std::uint64_t kPieceBytes = 256 << 10;

/// Fills an ObjectWriter's own buffers piece by piece, passes each on when it is full, and digests the bytes.
class PayloadStream {
 public:
  explicit PayloadStream(ObjectWriter& object) : object_(object) {}

  /// The buffer for the object's next bytes: at least one byte, at most a piece.
  std::span<std::byte> room() {
    if (used_ == buffer_.size()) {
      buffer_ = object_.buffer();
      used_ = 0;
    }
    return buffer_.subspan(used_, std::min<std::uint64_t>(buffer_.size() - used_, kPieceBytes));
  }

  /// The first `bytes` of room() have been filled.
  Status advance(std::size_t bytes) {
    digest_.update(buffer_.subspan(used_, bytes));
    used_ += bytes;
    written_ += bytes;
    return used_ == buffer_.size() ? flush() : Status();
  }

  Status finish() {
    if (Status status = flush(); !status) return status;
    return object_.finish();
  }

  std::uint64_t written() const { return written_; }
  Digest digest() const { return digest_.finish(); }

 private:
  Status flush() {
    const std::size_t bytes = std::exchange(used_, 0);
    buffer_ = {};
    return bytes > 0 ? object_.advance(bytes) : Status();
  }

  ObjectWriter& object_;
  std::span<std::byte> buffer_;
  std::size_t used_ = 0;
  std::uint64_t written_ = 0;
  DigestStream digest_;
};

Status write_header(PayloadStream& stream, const std::string& header) {
  for (std::size_t done = 0; done < header.size();) {
    const std::span<std::byte> room = stream.room();
    const std::size_t piece = std::min(room.size(), header.size() - done);
    std::memcpy(room.data(), header.data() + done, piece);
    if (Status status = stream.advance(piece); !status) return status;
    done += piece;
  }
  return {};
}

/// Sets the digest of `entry` and how many of its numbers are not finite.
Status write_tensor(PayloadStream& stream, const TensorSource& source, std::uint64_t bytes, TensorEntry& entry) {
  NonFiniteCounter non_finite(entry.dtype);
  if (bytes > 0 && bytes <= stream.room().size()) {  // most tensors of a large model: they need no DigestStream
    const std::span<std::byte> room = stream.room().first(bytes);
    source.copy(0, room);
    entry.digest = digest_of(std::span<const std::byte>(room));
    non_finite.update(room);
    entry.non_finite = non_finite.count();
    return stream.advance(bytes);
  }
  DigestStream digest;
  for (std::uint64_t done = 0; done < bytes;) {
    std::span<std::byte> room = stream.room();
    room = room.first(std::min<std::uint64_t>(room.size(), bytes - done));
    source.copy(done, room);
    digest.update(room);
    non_finite.update(room);
    if (Status status = stream.advance(room.size()); !status) return status;
    done += room.size();
  }
  entry.digest = digest.finish();
  entry.non_finite = non_finite.count();
  return {};
}

std::vector<TensorSource*> sorted_by_name(std::vector<TensorSource>& sources) {
  std::vector<TensorSource*> sorted;
  sorted.reserve(sources.size());
  for (TensorSource& source : sources) sorted.push_back(&source);
  const auto by_name = [](const TensorSource* a, const TensorSource* b) { return a->name < b->name; };
  if (!std::is_sorted(sorted.begin(), sorted.end(), by_name)) std::sort(sorted.begin(), sorted.end(), by_name);
  return sorted;
}

/// The indices of `by_name` in the order of a header: larger elements first.
std::vector<std::size_t> order_of_header(const std::vector<TensorSource*>& by_name) {
  std::vector<std::size_t> order(by_name.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](const std::size_t a, const std::size_t b) {
    return element_size(by_name[a]->dtype) > element_size(by_name[b]->dtype);
  });
  return order;
}

}  // namespace

std::uint64_t TensorSource::bytes() const {
  std::uint64_t bytes = element_size(dtype);
  for (const std::int64_t extent : shape) bytes *= static_cast<std::uint64_t>(extent);
  return bytes;
}

void TensorSource::each_piece(const std::function<void(std::span<const std::byte>)>& visit) const {
  const std::uint64_t size = bytes();
  std::vector<std::byte> room(std::min<std::uint64_t>(size, std::uint64_t{1} << 20));
  for (std::uint64_t done = 0; done < size; done += room.size()) {
    const auto piece = std::span(room).first(std::min<std::uint64_t>(room.size(), size - done));
    copy(done, piece);
    visit(piece);
  }
}

Digest TensorSource::digest() const {
  DigestStream digest;
  each_piece([&](std::span<const std::byte> piece) { digest.update(piece); });
  return digest.finish();
}

Result<PayloadTable> write_payload(Store& store, const std::string& name,
                                   const std::map<std::string, std::string>& metadata,
                                   std::vector<TensorSource> sources) {
  const std::vector<TensorSource*> by_name = sorted_by_name(sources);
  const std::vector<std::size_t> order = order_of_header(by_name);
  SafetensorsHeader header;
  header.metadata = metadata;
  header.tensors.reserve(sources.size());
  for (TensorSource* const source : by_name) {
    header.tensors.push_back({std::move(source->name), source->dtype, std::move(source->shape)});
  }
  const auto header_text = encode_safetensors_header(header);
  if (!header_text) return header_text.status();

  PayloadTable table;
  table.file.name = name;
  table.file.bytes = header.data_begin + (header.tensors.empty() ? 0 : header.tensors.back().end);
  table.file.header_bytes = header.data_begin;
  table.file.header_digest = digest_of(*header_text);

  const auto object = store.create(name, table.file.bytes);
  if (!object) return object.status();
  PayloadStream stream(**object);
  if (Status status = write_header(stream, *header_text); !status) return status;
  table.tensors.resize(header.tensors.size());
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    SafetensorsTensor& tensor = header.tensors[i];
    TensorEntry& entry = table.tensors[order[i]];
    entry.name = std::move(tensor.name);
    entry.dtype = tensor.dtype;
    entry.shape = std::move(tensor.shape);
    entry.parts.push_back({0, header.data_begin + tensor.begin, header.data_begin + tensor.end, {}, {}});
    const std::uint64_t bytes = tensor.end - tensor.begin;
    if (Status status = write_tensor(stream, *by_name[order[i]], bytes, entry); !status) return status;
  }
  if (Status status = stream.finish(); !status) return status;
  table.file.digest = stream.digest();
  return table;
}

}  // namespace holdfast::storage
