// The checks of holdfast doctor, over made-up machines and folders.
#include <fstream>

#include "catch.h"
#include "doctor/machine_checks.h"
#include "doctor/place_checks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace holdfast::tools;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

PlaceFacts good_place() {
  PlaceFacts facts;
  facts.capabilities = {true, true, true, true, true, true};
  facts.refuses_second_create = facts.lists_what_was_created = facts.reads_back = true;
  facts.entry = std::chrono::milliseconds(2);
  facts.payload = 64 << 20;
  facts.writing = facts.reading = seconds(1);
  facts.free = 100 * kGiB;
  facts.total = 200 * kGiB;
  return facts;
}

const Mount kMount{"/data", "ext4", "/dev/a", "/"};

std::string worst(const PlaceFacts& facts, Grade grade, const Loss& loss = {}) {
  std::string text;
  for (const Check& check : place_checks("/data", facts, &kMount, loss)) {
    if (check.grade == grade) text += check.what + "|" + check.remedy + "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("time_left_counts_from_the_machines_start_and_little_time_is_noted") {
  Profile colab;
  colab.title = "Colab";
  CHECK(has(time_check(colab, hours(3)).what, "no limit is known"));
  colab.limit = hours(12);
  const Check early = time_check(colab, hours(3));
  CHECK(early.grade == Grade::good);
  CHECK(has(early.what, "Colab's limit is 12 h, so 9 h are left"));
  const Check late = time_check(colab, hours(12) - minutes(10));
  CHECK(late.grade == Grade::note);
  CHECK(has(late.what, "10 min are left"));
  CHECK(has(time_check(colab, hours(13)).what, "no time is left"));
  CHECK(time_check(colab, {}).grade == Grade::note);
}

TEST_CASE("notices_are_recommended_on_a_clouds_machine_and_not_on_a_hosted_notebooks") {
  const holdfast::Finding google{"gce", "the firmware's product is Google Compute Engine"};
  for (const char* place : {"gce", "slurm", "kubernetes", "container"}) {
    CHECK(notices_to_set({.place = {place, ""}, .cloud = google}) == "gce");
  }
  for (const char* place : {"colab", "kaggle", "kaggle-batch", "sagemaker", "modal"}) {
    CHECK_FALSE(notices_to_set({.place = {place, ""}, .cloud = google}));
  }
  CHECK_FALSE(notices_to_set({.place = {"slurm", ""}}));
  const Check check = notices_check({.place = {"gce", ""}, .cloud = google}, "gce");
  CHECK(check.grade == Grade::note);
  CHECK(has(check.what, "Google Compute Engine"));
  CHECK(has(check.remedy, "--holdfast.notices gce"));
}

TEST_CASE("more_omp_threads_than_granted_processors_are_noted_with_the_number_to_set") {
  const Machine machine{16, 64 * kGiB};
  CHECK(processor_check(machine, {16, "16 processors", 64 * kGiB, ""}, {}).grade == Grade::good);
  const MachineLimits limits{2.5, "cpu.max of /g: 250000 of 100000 µs", 64 * kGiB, ""};
  const Check adapted = processor_check(machine, limits, {});
  CHECK(adapted.grade == Grade::good);
  CHECK(has(adapted.what, "2.5 of 16 processors"));
  CHECK(has(adapted.what, "programs use 2 threads"));
  const Check many = processor_check(machine, limits, "16");
  CHECK(many.grade == Grade::note);
  CHECK(has(many.remedy, "set it to 2"));
  CHECK(processor_check(machine, limits, "2").grade == Grade::good);
  CHECK(has(processor_check(machine, {0.5, "", 0, ""}, {}).what, "programs use 1 thread"));
}

TEST_CASE("doctor_finds_the_libtorch_of_the_python_that_a_shell_would_start") {
  const ScratchFolder root;
  const auto file = [&](const std::string& name) {
    boost::filesystem::create_directories((root.path() / name).parent_path());
    std::ofstream((root.path() / name).string()) << "";
  };
  file("bin/python3");
  file("lib/python3.12/dist-packages/torch/lib/libtorch_cpu.so");
  file("home/.cache/holdfast/libtorch-2.11.0/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so");
  Surroundings around;
  CHECK_FALSE(find_libtorch(around));
  around.environment["HOME"] = (root.path() / "home").string();
  REQUIRE(find_libtorch(around));
  CHECK(has(find_libtorch(around)->folder, "libtorch-2.11.0/"));
  around.environment["PATH"] = "relative:/nowhere:" + (root.path() / "bin").string();
  REQUIRE(find_libtorch(around));
  CHECK(find_libtorch(around)->folder == (root.path() / "lib/python3.12/dist-packages/torch/lib").string());
}

TEST_CASE("a_gpu_without_kernels_in_this_libtorch_is_bad_and_names_the_architecture") {
  const Libtorch wheel{"/venv/torch/lib", true,
                       "-gencode;arch=compute_75,code=sm_75;-gencode;arch=compute_80,code=sm_80"};
  const Gpu p100{"Tesla P100", 6, 0, ""}, t4{"Tesla T4", 7, 5, ""};
  const Checks checks = gpu_checks({p100, t4}, "13.0", wheel);
  REQUIRE(checks.size() == 2);
  CHECK(checks[0].grade == Grade::bad);
  CHECK(has(checks[0].remedy, "sm_60"));
  CHECK(checks[1].grade == Grade::good);
  CHECK(gpu_checks({t4}, "13.0", Libtorch{"/x", false, ""}).front().grade == Grade::note);
  CHECK(has(gpu_checks({t4}, "13.0", {}).front().what, "no LibTorch was found"));
  CHECK(has(gpu_checks({}, "", {}).front().what, "driver is not installed"));
  CHECK(has(gpu_checks({}, "13.0", {}).front().what, "although"));
}

TEST_CASE("little_memory_is_noted") {
  CHECK(memory_check({2, "", 16 * kGiB, "the machine's memory"}).grade == Grade::good);
  CHECK(memory_check({2, "", kGiB, "memory.max of /g"}).grade == Grade::note);
}

TEST_CASE("each_promise_that_a_folder_breaks_is_bad") {
  CHECK(worst(good_place(), Grade::bad).empty());
  CHECK(worst(good_place(), Grade::note).empty());
  CHECK(has(worst(good_place(), Grade::good), "writes 64 MiB/s until durable"));
  PlaceFacts facts = good_place();
  facts.refuses_second_create = false;
  CHECK(has(worst(facts, Grade::bad), "overwrite each other"));
  facts = good_place();
  facts.capabilities.create_only_enforced = false;
  CHECK(has(worst(facts, Grade::bad), "overwrite each other"));
  facts = good_place();
  facts.lists_what_was_created = false;
  CHECK(has(worst(facts, Grade::bad), "listing"));
  facts = good_place();
  facts.reads_back = false;
  CHECK(has(worst(facts, Grade::bad), "read back differently"));
  CHECK(worst(good_place(), Grade::bad, {"it is deleted", "copy it"}) == "it is deleted|copy it\n");
}

TEST_CASE("what_a_user_should_know_of_a_folder_is_noted") {
  PlaceFacts facts = good_place();
  facts.capabilities.durable_put = false;
  CHECK(has(worst(facts, Grade::note), "syncing files on ext4 does not prove"));
  facts = good_place();
  facts.free = kGiB;
  CHECK(has(worst(facts, Grade::note), "only 1 GiB of 200 GiB are free"));
  facts = good_place();
  facts.clock_ahead = -minutes(3);
  CHECK(has(worst(facts, Grade::note), "3 min behind this machine's"));
  facts.clock_ahead = minutes(3);
  CHECK(has(worst(facts, Grade::note), "3 min ahead of this machine's"));
  facts = good_place();
  facts.entry = seconds(5);
  CHECK(has(worst(facts, Grade::note), "publishing one small file takes 5 s"));
}

TEST_CASE("failed_probe_gives_the_stores_sentence_and_its_remedy") {
  PlaceFacts facts;
  facts.outcome = {storage::StatusCode::not_found, "there is no folder /x to make runs in; make it, or mount it"};
  const Checks checks = place_checks("/x/runs", facts, nullptr, {});
  REQUIRE(checks.size() == 1);
  CHECK(checks[0].grade == Grade::bad);
  CHECK(checks[0].what == "there is no folder /x to make runs in");
  CHECK(checks[0].remedy == "make it, or mount it");
  facts.outcome = {storage::StatusCode::unreadable, "no more is known"};
  CHECK(has(place_checks("/x/runs", facts, nullptr, {})[0].remedy, "--holdfast.dir"));
}

TEST_CASE("a_quota_that_is_almost_used_is_noted_and_a_full_one_is_bad") {
  const Quota quota{"/kaggle/working", 20'000'000'000};
  CHECK(quota_check(quota, 1'000'000'000).grade == Grade::good);
  CHECK(quota_check(quota, 19'000'000'000).grade == Grade::note);
  CHECK(quota_check(quota, 20'000'000'001).grade == Grade::bad);
}
