#include "ranks/collective_fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

constexpr std::size_t kLongestText = 512;  // of a call site or a description, which are only for messages

bool same(const CollectiveFingerprint& a, const CollectiveFingerprint& b) {
  return a.operation == b.operation && a.what == b.what;
}

std::string phrase(std::size_t rank, const CollectiveFingerprint& fingerprint) {
  return fmt::format("rank {} calls {}{}{} at {}", rank, fingerprint.operation, fingerprint.what.empty() ? "" : " of ",
                     fingerprint.what, fingerprint.site);
}

}  // namespace

std::string encode(const CollectiveFingerprint& fingerprint) {
  nlohmann::json header = {{"s", fingerprint.sequence},
                           {"o", fingerprint.operation},
                           {"c", fingerprint.site.substr(0, kLongestText)},
                           {"w", fingerprint.what.substr(0, kLongestText)},
                           {"b", fingerprint.bytes}};
  std::string wire = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  if (wire.size() + fingerprint.value.size() <= kFingerprintBytes) wire += fingerprint.value;
  wire.resize(kFingerprintBytes, '\0');
  return wire;
}

CollectiveFingerprint decode_fingerprint(const std::string& wire) {
  try {
    const std::size_t end = wire.find('\n');
    const nlohmann::json header = nlohmann::json::parse(wire.substr(0, end));
    CollectiveFingerprint fingerprint{header.at("s"), header.at("o"), header.at("c"),
                                      header.at("w"), header.at("b"), {}};
    if (end != std::string::npos && header.at("b").is_number_unsigned() && fingerprint.bytes <= kLargestValue) {
      if (end + 1 + fingerprint.bytes <= kFingerprintBytes) fingerprint.value = wire.substr(end + 1, fingerprint.bytes);
      return fingerprint;
    }
  } catch (const std::exception&) {
  }
  throw Error(storage::StatusCode::corrupt,
              "received a malformed message from another rank; start the same build of the program on all hosts");
}

std::optional<std::string> divergence(const std::vector<CollectiveFingerprint>& fingerprints) {
  // The operation that most ranks are in; in a tie, that of the lowest rank.
  std::size_t usual = 0, most = 0;
  for (std::size_t rank = 0; rank < fingerprints.size(); ++rank) {
    const auto alike = static_cast<std::size_t>(
        std::count_if(fingerprints.begin(), fingerprints.end(),
                      [&](const CollectiveFingerprint& other) { return same(other, fingerprints[rank]); }));
    if (alike > most) {
      most = alike;
      usual = rank;
    }
  }
  for (std::size_t rank = 0; rank < fingerprints.size(); ++rank) {
    if (same(fingerprints[rank], fingerprints[usual])) continue;
    return fmt::format(
        "the ranks diverge at operation {}: {}, {}; every rank must call the same operations in the same "
        "order",
        fingerprints[rank].sequence, phrase(rank, fingerprints[rank]), phrase(usual, fingerprints[usual]));
  }
  return std::nullopt;
}

}  // namespace holdfast
