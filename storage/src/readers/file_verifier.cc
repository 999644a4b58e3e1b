#include "readers/file_verifier.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "holdfast/storage/formats/safetensors.h"
#include "readers/tensor_reading.h"

namespace holdfast::storage {

FileVerifier::FileVerifier(const Manifest& manifest, std::size_t file, const ObjectReader& object,
                           std::vector<Finding>& findings)
    : entry_(manifest.files[file]), object_(object), findings_(findings) {
  const auto name = parse_payload_name(entry_.name);
  own_ = name && name->uid == manifest.uid;
  for (const TensorEntry& tensor : manifest.tensors) {
    for (const TensorPart& part : tensor.parts) {
      if (part.file == file) placed_.emplace_back(&part, &tensor);
    }
  }
  std::sort(placed_.begin(), placed_.end(), [](const Placed& a, const Placed& b) {
    return std::make_pair(a.first->begin, a.first->end) < std::make_pair(b.first->begin, b.first->end);
  });
}

void FileVerifier::run(std::span<std::byte> buffer, const std::function<void(std::uint64_t)>& done) {
  buffer_ = buffer;
  done_ = done;
  const std::size_t findings_before = findings_.size();
  const std::optional<Digest> header = range("", 0, entry_.header_bytes);
  if (header && *header != entry_.header_digest) {
    add(StatusCode::corrupt, "", 0, entry_.header_bytes, "the header does not match its digest");
  }
  std::uint64_t reached = entry_.header_bytes;
  for (const auto& [part, tensor] : placed_) {
    (void)range("", reached, part->begin);
    const std::optional<Digest> digest = range(tensor->name, part->begin, part->end);
    if (digest && is_whole(*tensor) && *digest != tensor->digest) {
      add(StatusCode::corrupt, tensor->name, part->begin, part->end, "the tensor does not match its digest");
    }
    reached = part->end;
  }
  (void)range("", reached, entry_.bytes);
  if (findings_.size() == findings_before && whole_.finish() != entry_.digest) {
    add(StatusCode::corrupt, "", 0, entry_.bytes,
        "the file does not match its digest, although all that lies in it does");
  }
  if (header) check_header();
}

void FileVerifier::add(StatusCode code, const std::string& tensor, std::uint64_t begin, std::uint64_t end,
                       const std::string& what) {
  findings_.push_back({code, entry_.name, tensor, begin, end, what});
}

std::optional<Digest> FileVerifier::range(const std::string& tensor, std::uint64_t begin, std::uint64_t end) {
  DigestStream digest;
  bool all_read = true;
  while (begin < end) {
    const std::span<std::byte> piece = buffer_.first(std::min<std::uint64_t>(buffer_.size(), end - begin));
    // The bytes after an unreadable piece are still checked.
    if (Status status = object_.read(begin, piece); !status) {
      if (all_read) {
        add(status.code(), tensor, begin, begin, status.message());
        all_read = false;
      }
      findings_.back().end = begin + piece.size();
    }
    digest.update(piece);
    whole_.update(piece);
    begin += piece.size();
    done_(piece.size());
  }
  if (!all_read) return std::nullopt;
  return digest.finish();
}

// Checks that the safetensors header, which Python reads, agrees with the manifest.
void FileVerifier::check_header() {
  const auto header = read_safetensors_header(object_);
  if (!header) return add(header.code(), "", 0, entry_.header_bytes, header.status().message());
  if (header->data_begin != entry_.header_bytes) {
    return add(StatusCode::corrupt, "", 0, header->data_begin, "the header's length is not the one in the manifest");
  }
  if (own_ && header->tensors.size() != placed_.size()) {
    add(StatusCode::corrupt, "", 0, entry_.header_bytes, "the header lists other tensors than the manifest");
  }
  std::map<std::string_view, const SafetensorsTensor*> in_header;
  for (const SafetensorsTensor& tensor : header->tensors) in_header.emplace(tensor.name, &tensor);
  for (const auto& [part, tensor] : placed_) {
    const auto found = in_header.find(tensor->name);
    const bool same = found != in_header.end() && found->second->dtype == tensor->dtype &&
                      found->second->shape == (part->offset.empty() ? tensor->shape : part->extent) &&
                      header->data_begin + found->second->begin == part->begin &&
                      header->data_begin + found->second->end == part->end;
    if (!same) {
      add(StatusCode::corrupt, tensor->name, part->begin, part->end,
          "the header and the manifest describe the tensor differently");
    }
  }
}

}  // namespace holdfast::storage
