// Entries with wrong content and a correct digest, for tests of the decoders' other checks.
#pragma once

#include <stdexcept>
#include <string>

#include "holdfast/storage/formats/digest.h"

namespace holdfast::storage {

/// `body` ends with ",\n"; adds the digest line.
inline std::string sealed(const std::string& body) { return body + "\"digest\":\"" + digest_of(body).hex() + "\"}\n"; }

/// An entry with `from` replaced by `to` and a new digest. Throws unless `from` occurs exactly once, so that no row of
/// a table can miss its target.
inline std::string resealed(const std::string& entry, const std::string& from, const std::string& to) {
  std::string body = entry.substr(0, entry.rfind("\"digest\":"));
  const std::size_t at = body.find(from);
  if (at == std::string::npos || body.find(from, at + 1) != std::string::npos) {
    throw std::logic_error("does not occur exactly once: " + from);
  }
  return sealed(body.replace(at, from.size(), to));
}

}  // namespace holdfast::storage
