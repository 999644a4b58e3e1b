// XXH3-128: the digest over every file, every tensor and every journal entry.
// Specification: xxHash, doc/xxhash_spec.md, "XXH3 algorithm", 128 bits, seed 0. Text form: 32 lower-case hex digits,
// most significant first, exactly what `xxh128sum` prints.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace holdfast::storage {

/// A finished 128-bit digest. A value.
struct Digest {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend bool operator==(const Digest&, const Digest&) = default;
  std::string hex() const;
  /// Empty unless `text` is exactly 32 lower-case hex digits.
  static std::optional<Digest> parse(std::string_view text);
};

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::string_view bytes);

/// Computes digest_of() over bytes that arrive in pieces. One thread at a time.
class DigestStream {
 public:
  DigestStream();
  ~DigestStream();
  DigestStream(DigestStream&&) noexcept;
  DigestStream& operator=(DigestStream&&) noexcept;
  void update(std::span<const std::byte> bytes);
  Digest finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace holdfast::storage
