// For every damage of the newest version, the code that opens runs chooses, loads and continues the version before it.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/sample_version.h"

using namespace holdfast::storage;

namespace {

/// Opens the run in a new session and reads all of a version. Returns the loaded step.
std::optional<std::uint64_t> resume(Store& store) {
  std::optional<std::uint64_t> step;
  OpenRequest request;
  request.run = "damaged";
  request.session = "bbbbbbbb";
  request.load = [&](const VersionReader& reader) {
    sample_version::Room room(reader.manifest());
    Status status = reader.read(room.targets, {.check_digests = true, .threads = 1});
    if (status.ok()) step = reader.manifest().position.step;
    return status;
  };
  const auto writer = RunWriter::open(store, request);
  if (!writer) return std::nullopt;
  return step;
}

}  // namespace

TEST_CASE("the_latest_is_chosen_past_every_64th_bit_flip", "[full]") {
  const auto store = open_memory_store(make_memory_image());
  const auto weights = sample_version::tensor("weights", Dtype::u8, {58'000});
  Uid newest;
  {
    OpenRequest request;
    request.run = "damaged";
    request.session = "aaaaaaaa";
    auto writer = RunWriter::open(*store, request);
    REQUIRE(writer.ok());
    for (const std::uint64_t step : {1, 2}) {
      SaveRequest save;
      save.position.step = step;
      save.tensors = {weights.source()};
      const auto saved = (*writer)->save(save);
      REQUIRE(saved.ok());
      newest = saved->uid;
    }
  }
  const auto journal = *store->list("journal");
  const auto forget_the_session = [&] {
    for (const std::string& name : *store->list("journal")) {
      if (std::find(journal.begin(), journal.end(), name) == journal.end()) REQUIRE(store->remove(name).ok());
    }
  };
  REQUIRE(resume(*store) == 2);
  forget_the_session();

  std::size_t flips = 0, past = 0, bytes = 0;
  for (const std::string& name : {entry_name(newest, EntryKind::save), payload_name({newest, 0, 1})}) {
    const std::string whole = *store->get(name);
    bytes += whole.size();
    for (std::size_t bit = 0; bit < whole.size() * 8; bit += 64) {
      std::string damaged = whole;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit / 64) % 8));
      REQUIRE(store->put(name, damaged).ok());
      ++flips;
      if (resume(*store) == 1) ++past;
      forget_the_session();
    }
    REQUIRE(store->put(name, whole).ok());
  }
  CHECK(resume(*store) == 2);
  std::printf("bytes=%zu flips=%zu older_version_chosen=%zu\n", bytes, flips, past);
  CHECK(past == flips);
  CHECK(flips >= 7'500);
}
