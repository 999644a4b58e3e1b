// The worked examples in storage/FORMAT.md are what the encoders produce.
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "catch.h"
#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/run/payload.h"
#include "holdfast/storage/stores/memory_store.h"
#include "source_folder.h"
#include "storage/sample_version.h"

using namespace holdfast::storage;
using namespace sample_version;

namespace {

const Uid kUid = uid_of(42);

std::string document() {
  std::ifstream file(source_folder() + "/storage/FORMAT.md", std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

void check_document_shows(const std::string& bytes) {
  INFO("FORMAT.md must show:\n" << bytes);
  CHECK(document().find("\n```\n" + bytes + "```\n") != std::string::npos);
}

/// The payload and the manifest of the examples.
struct Example {
  std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  std::string payload;
  Manifest manifest = manifest_of(kUid);

  Example() {
    const Tensor b{"b", Dtype::u8, {3}, {1, 2, 3}};
    const Tensor w{"w", Dtype::f32, {1, 2}, std::string("\0\0\x80\x3f\0\0\0\xc0", 8)};
    const std::string name = payload_name({kUid, 0, 1});
    const auto table =
        write_payload(*store, name, {{"format", "pt"}, {"holdfast.run", "mnist"}, {"holdfast.uid", kUid.text()}},
                      {b.source(), w.source()});
    REQUIRE(table);
    payload = *store->get(name);
    manifest.files = {table->file};
    manifest.tensors = table->tensors;
    manifest.tied = {{"head.w", "w"}};
  }
};

}  // namespace

TEST_CASE("format_document_shows_the_payload_that_is_written") {
  const std::string payload = Example().payload;
  REQUIRE(payload.size() == 4096 + 11);
  CHECK(payload.substr(0, 8) == std::string("\xf8\x0f\0\0\0\0\0\0", 8));
  const std::string header = payload.substr(8, 4088);
  check_document_shows(header.substr(0, header.find_last_not_of(' ') + 1) + "\n");
  std::string data;
  for (unsigned char byte : payload.substr(4096)) {
    if (!data.empty()) data += ' ';
    data.append({"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]});
  }
  INFO(data);
  CHECK(document().find("`" + data + "`") != std::string::npos);
}

TEST_CASE("format_document_shows_the_manifest_that_is_written") {
  const std::string text = encode(Example().manifest);
  REQUIRE(decode_manifest(text));
  check_document_shows(text);
}

TEST_CASE("format_document_shows_the_other_entries_that_are_written") {
  OpenEntry open;
  open.uid = {1, "7f3a9c1e"};
  open.epoch = 1;
  open.host = "colab-7";
  open.pid = 1234;
  open.platform = "colab";
  open.program = "8d1f0c55";
  open.time = "2026-01-31T11:00:00Z";
  check_document_shows(encode(open));

  Note note;
  note.uid = {43, "51d0aa02"};
  note.epoch = 2;
  note.kind = NoteKind::verdict;
  note.about = {kUid};
  note.reason = "version 42-7f3a lacks its file data/000042-7f3a9c1e.r0of1.safetensors";
  note.program = "8d1f0c55";
  note.time = "2026-01-31T13:00:00Z";
  check_document_shows(encode(note));
}
