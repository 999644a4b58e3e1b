// CollectiveFingerprint: each rank's description of the operation that it enters, exchanged before any bytes of it
// move. Gloo ends the process if sizes differ and hangs if operations do, so the ranks compare fingerprints first, and
// a divergence is an error with both call sites. The fingerprint also carries a small value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

struct CollectiveFingerprint {
  std::uint64_t sequence = 0;  // of the rank's operations, from 1
  std::string operation = {};  // "broadcast"
  std::string site = {};       // "train.cc:41"
  std::string what = {};       // must be alike on all ranks: "float [3, 4] from rank 0"; empty: nothing
  std::uint64_t bytes = 0;     // of the rank's value
  std::string value = {};      // the whole value, if it fits
};

/// Every fingerprint is this long on the wire.
inline constexpr std::size_t kFingerprintBytes = 4096;
/// More than any value has: bytes with a larger size are not a fingerprint.
inline constexpr std::uint64_t kLargestValue = std::uint64_t{1} << 40;

/// Omits a value that does not fit.
std::string encode(const CollectiveFingerprint& fingerprint);
/// Throws Error(corrupt) unless `wire` is a fingerprint of this build.
CollectiveFingerprint decode_fingerprint(const std::string& wire);

/// How the ranks' fingerprints differ, in a sentence that names two ranks, their operations and their call sites;
/// nothing if all entered the same operation. If all ranks but one agree, the sentence names that one.
std::optional<std::string> divergence(const std::vector<CollectiveFingerprint>& fingerprints);

}  // namespace holdfast
