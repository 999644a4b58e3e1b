#include "holdfast/storage/formats/digest.h"

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "catch.h"
#include "holdfast/storage/status.h"

using namespace holdfast::storage;

namespace {

/// The output of the reference program `xxh128sum` for the bytes (7 i + 3) mod 251, i = 0 … bytes - 1, on each side of
/// every length at which XXH3 changes its method.
struct Golden {
  std::size_t bytes;
  const char* hex;
};
constexpr Golden kGolden[] = {
    {0, "99aa06d3014798d86001c324468d497f"},      {1, "22bbb76b211a39ba13e608bc156defed"},
    {3, "ce31763cbf8245a5a9088dda485b481c"},      {16, "ce0b9647ab24f88460d75c5e47d40a24"},
    {17, "bfd327edcc2fbd12eeed7654312a26d7"},     {128, "a04233e3c9599748ef7e4d57ed67de26"},
    {129, "6e83694c09641bb7a28da26446fd5ab0"},    {240, "9a8457fec9cfea5e2288b3c22f48dea4"},
    {241, "07870750a974395682b1de299f6e411e"},    {1024, "f96a1bbdb2fef572f75e768c7cdd54b2"},
    {100000, "c0f903c0bf0d5d15d449c3d3e190d6d6"},
};

std::string golden_bytes(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>((i * 7 + 3) % 251);
  return text;
}

}  // namespace

TEST_CASE("digest_is_what_xxh128sum_prints") {
  for (const Golden& golden : kGolden) {
    CHECK(digest_of(golden_bytes(golden.bytes)).hex() == golden.hex);
  }
}

TEST_CASE("digest_of_pieces_is_the_digest_of_the_whole") {
  for (const Golden& golden : kGolden) {
    const std::string text = golden_bytes(golden.bytes);
    for (std::size_t piece : {std::size_t{1}, std::size_t{63}, std::size_t{4096}}) {
      DigestStream stream;
      for (std::size_t done = 0; done < text.size(); done += piece) {
        stream.update(std::as_bytes(std::span(text).subspan(done, std::min(piece, text.size() - done))));
      }
      CHECK(stream.finish().hex() == golden.hex);
    }
  }
}

TEST_CASE("digest_text_is_parsed_only_in_its_one_form") {
  const Digest digest{0x06b05ab6733a6185, 0x78af5f94892f3950};
  CHECK(digest.hex() == "06b05ab6733a618578af5f94892f3950");
  CHECK(Digest::parse(digest.hex()) == digest);
  for (const char* text :
       {"", "06b05ab6733a618578af5f94892f395", "06b05ab6733a618578af5f94892f39500", "06B05AB6733A618578AF5F94892F3950",
        "06b05ab6733a618578af5f94892f395g", " 6b05ab6733a618578af5f94892f3950", "0x6b05ab6733a618578af5f94892f3950"}) {
    INFO(text);
    CHECK_FALSE(Digest::parse(text));
  }
}

TEST_CASE("every_status_code_has_its_own_name") {
  std::vector<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(StatusCode::invalid); ++code) {
    const std::string_view name = to_string(static_cast<StatusCode>(code));
    CHECK(name != "?");
    CHECK(std::count(names.begin(), names.end(), name) == 0);
    names.push_back(name);
  }
}
