#include "holdfast/storage/stores/object_name.h"

#include <set>
#include <string>
#include <utility>

#include "catch.h"

using namespace holdfast::storage;

TEST_CASE("names_are_those_of_the_layout") {
  const Uid uid{42, "7f3a9c1e"};
  CHECK(uid.text() == "000042-7f3a9c1e");
  CHECK(uid.short_text() == "42-7f3a");
  CHECK(entry_name(uid, EntryKind::open) == "journal/000042-7f3a9c1e.open.json");
  CHECK(entry_name(uid, EntryKind::save) == "journal/000042-7f3a9c1e.save.json");
  CHECK(entry_name(uid, EntryKind::note) == "journal/000042-7f3a9c1e.note.json");
  CHECK(payload_name({uid, 0, 2}) == "data/000042-7f3a9c1e.r0of2.safetensors");
  CHECK(metrics_name(uid) == "metrics/000042-7f3a9c1e.jsonl");
  CHECK(log_name(uid) == "logs/000042-7f3a9c1e.log");
}

TEST_CASE("names_are_parsed_back_at_every_length_of_number") {
  for (std::uint64_t seq : {1ull, 9ull, 999999ull, 1000000ull, 123456789012ull, 999999999999999ull}) {
    const Uid uid{seq, "0123abcd"};
    CHECK(Uid::parse(uid.text()) == uid);
    for (EntryKind kind : {EntryKind::open, EntryKind::save, EntryKind::note}) {
      const auto entry = parse_entry_name(entry_name(uid, kind));
      REQUIRE(entry);
      CHECK(entry->uid == uid);
      CHECK(entry->kind == kind);
    }
    for (auto [rank, world_size] : {std::pair(0, 1), std::pair(9, 10), std::pair(1023, 65536)}) {
      const auto payload = parse_payload_name(payload_name({uid, rank, world_size}));
      REQUIRE(payload);
      CHECK(payload->uid == uid);
      CHECK(payload->rank == rank);
      CHECK(payload->world_size == world_size);
    }
  }
}

TEST_CASE("uids_sort_as_their_numbers_and_then_sessions_do") {
  CHECK(Uid{9, "ffffffff"} < Uid{10, "00000000"});
  CHECK(Uid{10, "00000000"} < Uid{10, "00000001"});
}

TEST_CASE("numbers_too_large_to_be_reached_by_counting_are_refused") {
  for (const char* text : {
           "",
           "-",
           "000042",
           "000042-",
           "42-7f3a9c1e",
           "00042-7f3a9c1e",    // fewer than six digits
           "0000042-7f3a9c1e",  // a zero too many
           "000000-7f3a9c1e",   // numbers begin at 1
           "1000000000000000-7f3a9c1e",
           "18446744073709551616-7f3a9c1e",  // too long, beyond 64 bits
           "000042-7f3a9c1",
           "000042-7f3a9c1e0",
           "000042-7F3A9C1E",
           "000042-7f3a9c1g",
           "000042_7f3a9c1e",
           "+00042-7f3a9c1e",
           " 00042-7f3a9c1e",
           "00004 -7f3a9c1e",
           "00-042-7f3a9c1e",
           "0x0042-7f3a9c1e",
           "000042-7f3a9c1e ",
       }) {
    INFO(text);
    CHECK_FALSE(Uid::parse(text));
  }
}

TEST_CASE("foreign_files_in_the_journal_are_not_entries") {
  for (const char* name : {
           "",
           "journal/",
           "000042-7f3a9c1e.save.json",
           "data/000042-7f3a9c1e.save.json",
           "journal/000042-7f3a9c1e.save.json.tmp",
           "journal/.000042-7f3a9c1e.save.json.tmp",
           "journal/000042-7f3a9c1e.save (1).json",
           "journal/000042-7f3a9c1e.save.json (1)",
           "journal/000042-7f3a9c1e (1).save.json",
           "journal/Copy of 000042-7f3a9c1e.save.json",
           "journal/000042-7f3a9c1e.Save.json",
           "journal/000042-7f3a9c1e.save.JSON",
           "journal/000042-7f3a9c1e.json",
           "journal/000042-7f3a9c1e.drop.json",
           "journal/000042-7f3a9c1e.save.open.json",
           "journal/.DS_Store",
           "journal/../000042-7f3a9c1e.save.json",
           "journal/x/000042-7f3a9c1e.save.json",
           "journal/000042-7f3a9c1e..save.json",
           "/journal/000042-7f3a9c1e.save.json",
       }) {
    INFO(name);
    CHECK_FALSE(parse_entry_name(name));
  }
  CHECK_FALSE(parse_entry_name(std::string("journal/000042-7f3a9c1e.save.json\0", 34)));
}

TEST_CASE("names_that_are_not_payload_names_are_refused_so_that_no_path_escapes") {
  for (const char* name : {
           "",
           "data/",
           "data/000042-7f3a9c1e.safetensors",
           "data/000042-7f3a9c1e.r0of1",
           "000042-7f3a9c1e.r0of1.safetensors",
           "data/../../etc/passwd",
           "data/../data/000042-7f3a9c1e.r0of1.safetensors",
           "/etc/passwd",
           "journal/000042-7f3a9c1e.r0of1.safetensors",
           "data/000042-7f3a9c1e.r1of1.safetensors",  // ranks begin at 0
           "data/000042-7f3a9c1e.r0of0.safetensors",
           "data/000042-7f3a9c1e.r-1of2.safetensors",
           "data/000042-7f3a9c1e.r00of2.safetensors",
           "data/000042-7f3a9c1e.r0of02.safetensors",
           "data/000042-7f3a9c1e.r0of.safetensors",
           "data/000042-7f3a9c1e.rof2.safetensors",
           "data/000042-7f3a9c1e.of2.safetensors",
           "data/000042-7f3a9c1e.r0o2.safetensors",
           "data/000042-7f3a9c1e.r0of2of3.safetensors",
           "data/000042-7f3a9c1e.r0of99999999999.safetensors",
           "data/000042-7f3a9c1e.r0of1.safetensors (1)",
           "data/000042-7f3a9c1e.r0of1 (1).safetensors",
           "data/000042-7f3a9c1e.r0of1.safetensors/",
           "data/000042-7f3a9c1e.r0of1.hfz",
       }) {
    INFO(name);
    CHECK_FALSE(parse_payload_name(name));
  }
}

TEST_CASE("session_ids_are_eight_digits_and_differ") {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = random_session_id();
    CHECK(is_session_id(id));
    ids.insert(id);
  }
  CHECK(ids.size() > 990);  // out of 2^32: the probability of two equal ones among 1000 is below 1 in 8000
  CHECK_FALSE(is_session_id("7f3a9c1"));
  CHECK_FALSE(is_session_id("7F3A9C1E"));
}
