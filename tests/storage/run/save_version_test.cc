#include <limits>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "run_contents.h"

using namespace run_fixture;

TEST_CASE("numbers_are_never_used_twice") {
  const auto store = open_memory_store(make_memory_image());
  std::uint64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    auto session = open_run(*store, {.session = std::string(8, static_cast<char>('a' + i))});
    REQUIRE(session.ok());
    CHECK(session->uid().seq > last);
    last = session->save(version(i + 1))->uid.seq;
    REQUIRE(session->prune({.keep_last = 1}).ok());
    last = std::max(last, session->history().highest_seq());
  }
}

TEST_CASE("a_closed_session_does_nothing_more") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  REQUIRE(session->note(NoteKind::close, {}, "end", {}).ok());
  CHECK(session->save(version(2)).code() == StatusCode::invalid);
  CHECK(open_run(*store, {.session = "bbbbbbbb"}).step == 1);  // and its lock is free
}

TEST_CASE("a_version_that_could_not_be_read_back_is_not_acknowledged_and_leaves_nothing") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  SaveRequest request = version(2);
  SECTION("a value nests too deep") {
    nlohmann::json deep = 1;
    for (int i = 0; i < 100; ++i) deep = nlohmann::json::array({deep});
    request.values["deep"] = deep;
  }
  SECTION("a tied name leads nowhere") { request.tied["v"] = "gone"; }
  const auto saved = session->save(request);
  CHECK(saved.code() == StatusCode::invalid);
  CHECK(store->list("data")->size() == 1);
  CHECK(session->save(version(3)).ok());
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 3});
}

TEST_CASE("a_version_that_its_session_refuses_when_it_sees_the_tensors_leaves_nothing") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  SaveRequest request = version(2);
  request.tensors.push_back(constant_tensor("bad", std::numeric_limits<float>::infinity()));
  request.inspect = [](const Manifest& manifest) {
    const bool is_finite = manifest.find("bad")->non_finite == 0;
    return is_finite ? Status() : Status(StatusCode::misfit, "not that one");
  };
  const auto refused = session->save(request);
  CHECK(refused.code() == StatusCode::misfit);
  CHECK(refused.status().message().find("not that one") != std::string::npos);
  CHECK(store->list("data")->size() == 1);
  request.tensors.back() = constant_tensor("bad", 1);
  CHECK(session->save(request).ok());
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 2});
}

TEST_CASE("an_entry_that_could_not_be_read_back_is_not_written") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  const auto before = *store->list("journal");
  const std::string long_text(kMaxEntryBytes, 'x');
  CHECK(session->note(NoteKind::verdict, {}, long_text, {}).code() == StatusCode::invalid);
  CHECK(session->note(NoteKind::verdict, {}, "", {{"text", long_text}}).code() == StatusCode::invalid);
  CHECK(*store->list("journal") == before);
  // A session that other sessions cannot see would not stop them.
  CHECK(open_run(*store, {.session = "not hex!", .take_over = true}).writer.code() == StatusCode::invalid);
  CHECK(open_run(*store, {.session = "bbbbbbbb", .program = long_text, .take_over = true}).writer.code() ==
        StatusCode::invalid);
  CHECK(*store->list("journal") == before);
  CHECK(session->save(version(1)).ok());
}
