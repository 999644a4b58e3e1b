// What the command reports for versions whose tensors hold NaN or infinities.
#include <limits>

#include "runs.h"

using namespace holdfast::storage;

TEST_CASE("ls_and_show_report_which_versions_and_tensors_are_not_finite") {
  ScratchFolder scratch;
  const std::string run = (scratch / "mnist").string();
  {
    const auto store = open_file_store(run);
    auto session = run_fixture::open_run(*store);
    REQUIRE(session->save(run_fixture::version(1)).ok());
    auto request = run_fixture::version(2);
    request.tensors[0] = run_fixture::constant_tensor("w", std::numeric_limits<float>::quiet_NaN());
    const auto saved = session->save(request);
    REQUIRE(saved.ok());
    auto old = decode_manifest(*store->get(entry_name(saved->uid, EntryKind::save)));
    REQUIRE(old.ok());
    old->uid.seq = 4;
    old->non_finite.reset();
    for (TensorEntry& tensor : old->tensors) tensor.non_finite = 0;
    REQUIRE(store->put(entry_name(old->uid, EntryKind::save), encode(*old)).ok());
  }
  const auto listed = holdfast_command({"ls", run, "--json"}).json();
  CHECK(listed["versions"][0]["non_finite"] == 0);
  CHECK(listed["versions"][1]["non_finite"] == 64);
  CHECK(listed["versions"][2]["non_finite"] == nullptr);  // its writer did not count
  const std::string table = holdfast_command({"ls", run}).out;
  CHECK(table.find("64 numbers NaN or infinite") != std::string::npos);
  CHECK(table.find("64 numbers NaN or infinite") == table.rfind("64 numbers NaN or infinite"));

  const auto shown = holdfast_command({"show", run, "3", "--json"}).json();
  CHECK(shown["non_finite"] == 64);
  CHECK(shown["tensors"][0]["non_finite"] == 0);
  CHECK(shown["tensors"][1]["non_finite"] == 64);
  const std::string text = holdfast_command({"show", run, "3"}).out;
  CHECK(text.find("w       F32    [8, 8]    256  64 NaN or infinite\n") != std::string::npos);
}
