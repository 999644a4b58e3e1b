#include "holdfast/storage/text/units.h"

#include <chrono>
#include <cstdint>

#include "catch.h"
#include "holdfast/storage/text/time.h"

using namespace holdfast::storage;
using namespace std::chrono_literals;

TEST_CASE("quantities_are_formatted_with_their_units") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1 KiB");
  CHECK(format_bytes(1536) == "1.5 KiB");
  CHECK(format_bytes(19293798) == "18.4 MiB");
  CHECK(format_bytes((std::uint64_t{1} << 30) - 1) == "1 GiB");
  CHECK(format_bytes(std::uint64_t{7} << 30) == "7 GiB");
  CHECK(format_bytes(~std::uint64_t{0}) == "16 EiB");
  CHECK(format_duration(0s) == "0 s");
  CHECK(format_duration(850us) == "850 µs");
  CHECK(format_duration(12345us) == "12.3 ms");
  CHECK(format_duration(999600us) == "1 s");
  CHECK(format_duration(4560ms) == "4.56 s");
  CHECK(format_duration(59990ms) == "1 min");
  CHECK(format_duration(187s) == "3 min 07 s");
  CHECK(format_duration(3599700ms) == "1 h");
  CHECK(format_duration(125min) == "2 h 05 min");
  CHECK(format_duration(76h) == "3 d 04 h");
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(1234567) == "1,234,567");
  CHECK(parse_duration("90 seconds") == 90s);
  CHECK(parse_duration("250ms") == 250ms);
  CHECK(parse_duration("2days") == 48h);
  CHECK_FALSE(parse_duration("5"));
  CHECK_FALSE(parse_duration("1.2.3s"));
  CHECK_FALSE(parse_duration("5 fortnights"));
}

TEST_CASE("a_time_is_read_as_it_was_written") {
  CHECK(parse_time("1970-01-02T00:00:01Z") == 86401);
  CHECK(parse_time("2026-02-28T23:59:59Z") == 1772323199);
  for (const char* other : {"", "2026-02-28", "2026-02-28T23:59:59", "2026-02-28 23:59:59Z", "yesterday"}) {
    CHECK_FALSE(parse_time(other).has_value());
  }
  const auto now = parse_time(time_text());
  REQUIRE(now.has_value());
  CHECK(*now > 1772323199);
}
