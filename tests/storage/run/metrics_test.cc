#include "holdfast/storage/run/metrics.h"

#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "holdfast/storage/stores/object_name.h"

using namespace holdfast::storage;
using nlohmann::json;

namespace {

/// A store with a run that several sessions opened, each with a metrics file.
struct Sessions {
  std::shared_ptr<MemoryImage> image = make_memory_image();
  std::unique_ptr<Store> store = open_memory_store(image);

  void add(const Uid& uid, std::uint64_t epoch, const std::string& lines) {
    OpenEntry open;
    open.uid = uid;
    open.epoch = epoch;
    auto staged = store->stage(entry_name(uid, EntryKind::open), encode(open));
    REQUIRE(staged);
    REQUIRE((*staged)->publish());
    if (!lines.empty()) REQUIRE(store->append(metrics_name(uid), lines));
  }

  std::vector<json> read() {
    History history;
    REQUIRE(history.refresh(*store));
    auto records = read_metrics(*store, history);
    REQUIRE(records);
    return *records;
  }
};

}  // namespace

TEST_CASE("metrics_take_each_step_from_the_later_session") {
  Sessions sessions;
  // The later session has the smaller number and name: only the epoch tells which one is later.
  sessions.add({1, "00000000"}, 2, "{\"step\":2,\"loss\":20}\n{\"step\":3,\"loss\":30}\n");
  sessions.add({5, "ffffffff"}, 1, "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2,\"lr\":7}\n");
  CHECK(sessions.read() ==
        std::vector<json>{{{"step", 1}, {"loss", 1}}, {{"step", 2}, {"loss", 20}}, {{"step", 3}, {"loss", 30}}});
}

TEST_CASE("metrics_of_one_step_are_merged_within_a_session") {
  Sessions sessions;
  sessions.add({1, "00000000"}, 1, "{\"step\":1,\"loss\":1}\n{\"step\":1,\"accuracy\":0.5,\"loss\":2}\n");
  CHECK(sessions.read() == std::vector<json>{{{"step", 1}, {"loss", 2}, {"accuracy", 0.5}}});
}

TEST_CASE("torn_and_foreign_lines_of_metrics_are_skipped") {
  Sessions sessions;
  sessions.add({1, "00000000"}, 1,
               "{\"step\":1}\nnonsense\n\n[1]\n{\"loss\":1}\n{\"step\":-1}\n{\"step\":\"2\"}\n{\"step\":3,\"step\":4}\n"
               "{\"step\":5}\n{\"step\":6}");
  sessions.add({2, "00000001"}, 2, "");
  CHECK(sessions.read() == std::vector<json>{{{"step", 1}}, {{"step", 5}}});
}
