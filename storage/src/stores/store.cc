#include "holdfast/storage/stores/store.h"

#include "holdfast/storage/text/text.h"

namespace holdfast::storage {

Result<std::string> Store::get(const std::string& name, std::uint64_t limit) const {
  auto reader = open(name);
  if (!reader) return reader.status();
  const std::uint64_t bytes = (*reader)->bytes();
  if (bytes > limit) {
    return Status(StatusCode::corrupt, location() + "/" + name + " has " + std::to_string(bytes) +
                                           " bytes, more than the " + std::to_string(limit) +
                                           " such an object may have");
  }
  std::string text(bytes, '\0');
  const Status read = (*reader)->read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  if (!read.ok()) return read;
  return text;
}

}  // namespace holdfast::storage
