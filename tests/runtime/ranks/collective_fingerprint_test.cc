#include "ranks/collective_fingerprint.h"

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "message_parts.h"

namespace {

using namespace holdfast;

CollectiveFingerprint fingerprint(const std::string& operation, const std::string& what = "") {
  return {9, operation, operation + ".cc:3", what, 0, {}};
}

}  // namespace

TEST_CASE("a_collective_fingerprint_carries_small_values_and_omits_long_ones") {
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{3000}, std::size_t{4000}, kFingerprintBytes}) {
    CollectiveFingerprint sent{12, "broadcast", "train.cc:41", "a value from rank 0", bytes, std::string(bytes, '\n')};
    const std::string wire = encode(sent);
    CHECK(wire.size() == kFingerprintBytes);
    const CollectiveFingerprint got = decode_fingerprint(wire);
    CHECK(got.sequence == 12);
    CHECK(got.operation == "broadcast");
    CHECK(got.site == "train.cc:41");
    CHECK(got.what == "a value from rank 0");
    CHECK(got.bytes == bytes);
    CHECK((got.value == sent.value || (bytes > 3900 && got.value.empty())));
  }
}

TEST_CASE("a_malformed_collective_fingerprint_is_an_error") {
  for (const char* wire : {"", "x", "{}\n", "[1]\n",
                           R"({"s":1,"o":2,"c":"","w":"","b":0})"
                           "\n",
                           R"({"s":1,"o":"","c":"","w":"","b":-1})"
                           "\n",
                           R"({"s":1,"o":"","c":"","w":"","b":18446744073709551615})"
                           "\n",
                           R"({"s":1,"o":"","c":"","w":"","b":1e300})"
                           "\n",
                           R"({"s":1,"o":"","c":"","w":"","b":2000000000000})"
                           "\n",
                           R"({"s":1,"o":"","c":"","w":"","b":0})"}) {
    std::string bytes = wire;
    CAPTURE(bytes);
    bytes.resize(kFingerprintBytes, bytes.empty() ? 'x' : '\0');
    CHECK_THROWS_AS(decode_fingerprint(bytes), Error);
  }
}

TEST_CASE("the_rank_that_differs_from_most_is_named") {
  CHECK_FALSE(divergence({fingerprint("barrier")}));
  CHECK_FALSE(divergence({fingerprint("barrier"), fingerprint("barrier")}));
  const auto third_differs = divergence({fingerprint("barrier"), fingerprint("barrier"), fingerprint("save", "x")});
  REQUIRE(third_differs);
  CHECK(lacking(*third_differs,
                {"operation 9", "rank 2 calls save of x at save.cc:3", "rank 0 calls barrier at barrier.cc:3"}) == "");
  CHECK(find_part(*third_differs, "rank 1") == std::string::npos);
  const auto main_differs = divergence({fingerprint("save"), fingerprint("barrier"), fingerprint("barrier")});
  REQUIRE(main_differs);
  CHECK(main_differs->find("rank 0 calls save at save.cc:3, rank 1 calls barrier") != std::string::npos);
}
