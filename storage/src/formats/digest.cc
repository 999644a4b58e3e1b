#include "holdfast/storage/formats/digest.h"

// The dispatching header picks the widest vector unit of the machine at run time; the digests are the same.
#ifdef HOLDFAST_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include <new>

#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

constexpr std::size_t kHexDigits = 32;

Digest from(XXH128_hash_t hash) { return {hash.high64, hash.low64}; }

}  // namespace

std::string Digest::hex() const {
  std::string text;
  text.reserve(kHexDigits);
  append_hex(text, high, kHexDigits / 2);
  append_hex(text, low, kHexDigits / 2);
  return text;
}

std::optional<Digest> Digest::parse(std::string_view text) {
  if (text.size() != kHexDigits) return std::nullopt;
  Digest digest;
  // Not std::from_chars, which also accepts upper case.
  for (std::size_t i = 0; i < kHexDigits; ++i) {
    const char c = text[i];
    std::uint64_t value = 0;
    if (c >= '0' && c <= '9') {
      value = static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = static_cast<std::uint64_t>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    std::uint64_t& half = i < kHexDigits / 2 ? digest.high : digest.low;
    half = half << 4 | value;
  }
  return digest;
}

Digest digest_of(std::span<const std::byte> bytes) { return from(XXH3_128bits(bytes.data(), bytes.size())); }

Digest digest_of(std::string_view bytes) { return from(XXH3_128bits(bytes.data(), bytes.size())); }

struct DigestStream::State {
  // Allocated by the library, because only the library knows the size and alignment.
  State() : xxh3(XXH3_createState()) {
    if (!xxh3) throw std::bad_alloc();
    XXH3_128bits_reset(xxh3);
  }
  ~State() { XXH3_freeState(xxh3); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* xxh3;
};

DigestStream::DigestStream() : state_(std::make_unique<State>()) {}
DigestStream::~DigestStream() = default;
DigestStream::DigestStream(DigestStream&&) noexcept = default;
DigestStream& DigestStream::operator=(DigestStream&&) noexcept = default;

void DigestStream::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size());
}

Digest DigestStream::finish() const { return from(XXH3_128bits_digest(state_->xxh3)); }

}  // namespace holdfast::storage
