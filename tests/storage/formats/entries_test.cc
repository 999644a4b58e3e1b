#include "holdfast/storage/formats/entries.h"

#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;

namespace {

OpenEntry sample_open() {
  OpenEntry open;
  open.uid = {43, "51d0aa02"};
  open.epoch = 4;
  open.base = Uid{42, "7f3a9c1e"};
  open.rewind = true;
  open.host = "colab-7";
  open.pid = 1234;
  open.platform = "colab";
  open.program = "8d1f";
  open.time = "2026-01-31T12:00:00Z";
  return open;
}

Note sample_note() {
  Note note;
  note.uid = {44, "51d0aa02"};
  note.epoch = 4;
  note.kind = NoteKind::drop;
  note.about = {{40, "7f3a9c1e"}, {41, "7f3a9c1e"}};
  note.reason = "keep the last 3";
  note.program = "8d1f";
  note.time = "2026-01-31T12:00:01Z";
  note.details = {{"seconds", 0.25}};
  return note;
}

const std::string kOpenText =
    R"({"holdfast":"open","format":1,
"uid":"000043-51d0aa02",
"epoch":4,
"base":"000042-7f3a9c1e",
"rewind":true,
"host":"colab-7",
"pid":1234,
"platform":"colab",
"program":"8d1f",
"time":"2026-01-31T12:00:00Z",
"digest":"726c1798a683740a0814e54eb1eadd53"}
)";

const std::string kNoteText =
    R"({"holdfast":"note","format":1,
"uid":"000044-51d0aa02",
"epoch":4,
"kind":"drop",
"about":["000040-7f3a9c1e","000041-7f3a9c1e"],
"reason":"keep the last 3",
"program":"8d1f",
"time":"2026-01-31T12:00:01Z",
"details":{"seconds":0.25},
"digest":"3bda0a3e1bb7fa5ed2cb3f7937143f60"}
)";

}  // namespace

// The digest in each text is what `xxh128sum` prints for the lines above it.
TEST_CASE("entries_are_encoded_as_the_format_specifies") {
  CHECK(encode(sample_open()) == kOpenText);
  CHECK(encode(sample_note()) == kNoteText);
}

TEST_CASE("open_entry_is_read_back_as_written") {
  for (const bool from_scratch : {false, true}) {
    OpenEntry open = sample_open();
    if (from_scratch) open.base.reset();
    if (!from_scratch) open.left_behind = Uid{12, "51d0aa02"};
    const auto back = decode_open(encode(open));
    REQUIRE(back);
    CHECK(back->uid == open.uid);
    CHECK(back->epoch == open.epoch);
    CHECK(back->base == open.base);
    CHECK(back->left_behind == open.left_behind);
    CHECK(back->rewind == open.rewind);
    CHECK(back->host == open.host);
    CHECK(back->pid == open.pid);
    CHECK(back->platform == open.platform);
    CHECK(back->program == open.program);
    CHECK(back->time == open.time);
  }
}

TEST_CASE("note_of_every_kind_is_read_back_as_written") {
  for (NoteKind kind : {NoteKind::attempt, NoteKind::verdict, NoteKind::drop, NoteKind::close, NoteKind::death}) {
    Note note = sample_note();
    note.kind = kind;
    const auto back = decode_note(encode(note));
    REQUIRE(back);
    CHECK(back->uid == note.uid);
    CHECK(back->epoch == note.epoch);
    CHECK(back->kind == kind);
    CHECK(back->about == note.about);
    CHECK(back->reason == note.reason);
    CHECK(back->program == note.program);
    CHECK(back->time == note.time);
    CHECK(back->details == note.details);
  }
}

TEST_CASE("an_entry_with_text_that_is_not_utf8_can_be_read") {
  OpenEntry open = sample_open();
  open.host = "caf\xe9";
  const auto back = decode_open(encode(open));
  REQUIRE(back);
  CHECK(back->host == "caf\xef\xbf\xbd");
}

TEST_CASE("entries_with_keys_of_a_later_release_are_read") {
  const auto open = decode_open(resealed(kOpenText, "\"epoch\":4,", "\"epoch\":4,\"moon\":{\"phase\":[1,2]},"));
  REQUIRE(open);
  CHECK(open->epoch == 4);
}

TEST_CASE("every_changed_bit_or_length_of_an_entry_is_detected") {
  REQUIRE(decode_open(kOpenText));
  std::string text = kOpenText;
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    if (decode_open(text).code() != StatusCode::corrupt) FAIL("bit " << bit << " was not noticed");
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
  }
  for (std::size_t length = 0; length < text.size(); ++length) {
    if (decode_open(text.substr(0, length)).code() != StatusCode::corrupt)
      FAIL("length " << length << " was not noticed");
  }
  CHECK(decode_open(text + "\n").code() == StatusCode::corrupt);
  CHECK(decode_open(text + text).code() == StatusCode::corrupt);
}

TEST_CASE("entries_that_do_not_follow_the_format_are_refused_with_a_sentence") {
  struct Row {
    const char* from;
    const char* to;
    StatusCode code;
    const char* sentence;
  };
  const StatusCode corrupt = StatusCode::corrupt;
  const Row rows[] = {
      {"\"open\"", "\"save\"", corrupt, "the open entry does not identify itself as a Holdfast \"open\" entry"},
      {"{\"holdfast\":\"open\",", "{", corrupt, "the open entry does not identify itself as a Holdfast \"open\" entry"},
      {"\"format\":1", "\"format\":2", StatusCode::unsupported,
       "the open entry has format 2, this Holdfast reads up to 1: use a newer Holdfast"},
      {"\"format\":1", "\"format\":0", corrupt, "the open entry has format 0, which never existed"},
      {"\"format\":1", "\"format\":\"1\"", corrupt,
       "the open entry has a \"format\" that is not a whole number of 0 or more"},
      {",\"format\":1", "", corrupt, "the open entry has no \"format\""},
      {"\"epoch\":4", "\"epoch\":4,\"needs_features\":[\"warp\"]", StatusCode::unsupported,
       "the open entry needs the feature \"warp\", which this Holdfast does not know: use a newer Holdfast"},
      {"\"epoch\":4", "\"epoch\":4,\"needs_features\":\"warp\"", corrupt,
       "the open entry has a \"needs_features\" that is not a list"},
      {"\"epoch\":4", "\"epoch\":4,\"needs_features\":[1]", corrupt,
       "the open entry has a \"needs_features\" that does not list names"},
      {"\"epoch\":4,\n", "", corrupt, "the open entry has no \"epoch\""},
      {"\"epoch\":4", "\"epoch\":-4", corrupt,
       "the open entry has a \"epoch\" that is not a whole number of 0 or more"},
      {"\"epoch\":4", "\"epoch\":4.0", corrupt,
       "the open entry has a \"epoch\" that is not a whole number of 0 or more"},
      {"\"epoch\":4", "\"epoch\":4,\"epoch\":5", corrupt, "the open entry has the key \"epoch\" twice"},
      {"\"pid\":1234", "\"pid\":9223372036854775808", corrupt, "the open entry has a \"pid\" that is too large"},
      {"\"rewind\":true", "\"rewind\":1", corrupt, "the open entry has a \"rewind\" that is neither true nor false"},
      {"\"host\":\"colab-7\"", "\"host\":7", corrupt, "the open entry has a \"host\" that is not a string"},
      {"\"base\":\"000042-7f3a9c1e\"", "\"base\":\"../42\"", corrupt,
       "the open entry has a \"base\" that is not a number and a session: \"../42\""},
      {"\"uid\":\"000043-51d0aa02\"", "\"uid\":null", corrupt, "the open entry has a \"uid\" that is not a string"},
  };
  for (const Row& row : rows) {
    INFO(row.from << " -> " << row.to);
    const auto open = decode_open(resealed(kOpenText, row.from, row.to));
    REQUIRE_FALSE(open);
    CHECK(open.code() == row.code);
    CHECK(open.status().message() == row.sentence);
  }

  const Row note_rows[] = {
      {"\"kind\":\"drop\"", "\"kind\":\"party\"", StatusCode::unsupported,
       "the note entry has the kind \"party\", which this Holdfast does not know: use a newer Holdfast"},
      {"[\"000040-7f3a9c1e\"", "[40", corrupt,
       "the note entry has a \"about\" that does not list numbers and sessions"},
      {"[\"000040-7f3a9c1e\",\"000041-7f3a9c1e\"]", "{}", corrupt, "the note entry has a \"about\" that is not a list"},
      {"{\"seconds\":0.25}", "[]", corrupt, "the note entry has a \"details\" that is not an object"},
  };
  for (const Row& row : note_rows) {
    INFO(row.from << " -> " << row.to);
    const auto note = decode_note(resealed(kNoteText, row.from, row.to));
    REQUIRE_FALSE(note);
    CHECK(note.code() == row.code);
    CHECK(note.status().message() == row.sentence);
  }
}

TEST_CASE("an_entry_is_never_decoded_as_one_of_another_kind") {
  CHECK(decode_note(kOpenText).code() == StatusCode::corrupt);
  CHECK(decode_open(kNoteText).code() == StatusCode::corrupt);
}
