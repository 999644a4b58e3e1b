// holdfast doctor: what it says of this machine, and what it finds out about folders by trying them.
#include <sys/stat.h>
#include <utime.h>

#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <ctime>
#include <optional>

#include "command.h"

namespace {

using nlohmann::json;

/// Sets a variable for the commands that run during its lifetime; without a value, unsets it.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Variable() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

std::string checks_of(const json& report, const std::string& area, const std::string& grade) {
  std::string sentences;
  for (const json& check : report.at("checks")) {
    if (check.at("area") == area && check.at("grade") == grade)
      sentences += check.at("what").get<std::string>() + "|" + check.at("remedy").get<std::string>() + "\n";
  }
  return sentences;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Whether doctor's words for a folder of this test say that it is lost with the machine: temporary folders are in
// memory on some machines, and in the container's own layer in some containers.
bool is_lost(const std::string& text) {
  return contains(text, "is in memory") || contains(text, "is in the container's own layer");
}

}  // namespace

TEST_CASE("doctor_tries_a_folder_for_real_and_leaves_nothing_behind") {
  const ScratchFolder scratch;
  const std::string place = (scratch / "runs").string();
  const Said said = holdfast_command({"doctor", place, "--size", "2", "--json"});
  INFO(said.out << said.err);
  CHECK(said.code == (is_lost(said.out) ? 1 : 0));
  const json report = said.json();
  CHECK(report.at("ok") == (said.code == 0));
  const std::string good = checks_of(report, place, "good");
  CHECK(contains(good, "creates only new files"));
  CHECK(contains(good, "/s until durable"));
  CHECK_FALSE(boost::filesystem::exists(place));
  CHECK(boost::filesystem::is_empty(scratch.path()));

  boost::filesystem::create_directories(scratch / "runs" / "mine");
  CHECK(contains(holdfast_command({"doctor", place, "--size", "1"}).out, "creates only new files"));
  CHECK(boost::filesystem::exists(scratch / "runs" / "mine"));
  CHECK(std::distance(boost::filesystem::directory_iterator(scratch / "runs"), {}) == 1);
}

TEST_CASE("doctor_removes_what_a_killed_probe_left_but_not_what_one_is_using") {
  const ScratchFolder scratch;
  const auto old = scratch / ".holdfast-doctor-0000000a", recent = scratch / ".holdfast-doctor-0000000b";
  for (const auto& folder : {old, recent}) {
    boost::filesystem::create_directories(folder / "data");
    write_file(folder / "data" / "x", "x");
  }
  const utimbuf two_hours_ago{std::time(nullptr) - 7200, std::time(nullptr) - 7200};
  REQUIRE(::utime(old.c_str(), &two_hours_ago) == 0);
  const Said said = holdfast_command({"doctor", scratch.path().string(), "--size", "1"});
  CHECK(contains(said.out, "creates only new files"));
  CHECK_FALSE(boost::filesystem::exists(old));
  CHECK(boost::filesystem::exists(recent));
}

TEST_CASE("doctor_names_the_platform_the_reason_and_the_remedy") {
  const Variable kaggle("KAGGLE_KERNEL_RUN_TYPE", "Batch"), colab("COLAB_RELEASE_TAG", "release");
  const Variable dir("HOLDFAST_DIR", nullptr);
  if (boost::filesystem::exists("/kaggle")) return;  // on Kaggle itself
  const Said said = holdfast_command({"doctor", "--size", "1"});
  CHECK(said.code == 1);
  CHECK(contains(said.out, "(kaggle-batch), because KAGGLE_KERNEL_RUN_TYPE=Batch"));
  CHECK(contains(said.out, "limit is 12 h"));
  CHECK(contains(said.out, "there is no folder /kaggle/working"));
  CHECK(contains(said.out, "What to do:\n  1. /kaggle/working/holdfast: make it, mount it, or choose another folder"));
}

TEST_CASE("a_folder_that_cannot_be_written_is_bad_and_no_configuration_is_written_for_it") {
  const ScratchFolder scratch;
  boost::filesystem::create_directories(scratch / "closed");
  REQUIRE(::chmod((scratch / "closed").c_str(), 0555) == 0);
  const std::string config = (scratch / "train.json").string(), place = (scratch / "closed").string();
  const Said said = holdfast_command({"doctor", place, "--size", "1", "--write-config", config}, {.as_any_user = true});
  CHECK(said.code == 1);
  CHECK(contains(said.out, "permission denied"));
  CHECK(contains(said.out, "was not written, because a check is bad"));
  CHECK_FALSE(boost::filesystem::exists(config));
}

TEST_CASE("the_configuration_that_doctor_writes_names_platform_and_folder_with_their_reasons") {
  const ScratchFolder scratch;
  const Variable slurm("SLURM_JOB_ID", "41"), folder("SCRATCH", scratch.path().c_str());
  const Variable dir("HOLDFAST_DIR", nullptr), kaggle("KAGGLE_KERNEL_RUN_TYPE", nullptr);
  const std::string config = (scratch / "train.json").string();
  const Said said = holdfast_command({"doctor", "--size", "1", "--write-config", config});
  INFO(said.out << said.err);
  if (is_lost(said.out)) return;  // then it writes none
  REQUIRE(said.code == 0);
  const std::string text = content_of(config);
  const json written = json::parse(text, nullptr, true, /*ignore_comments=*/true);
  CHECK(written.at("platform") == "slurm");
  CHECK(written.at("dir") == (scratch / "holdfast").string());
  CHECK(contains(text, "// SLURM_JOB_ID=41"));
  CHECK(contains(text, "// SCRATCH"));
  // An existing file is not overwritten, and a later doctor reads it.
  const Said again = holdfast_command({"doctor", "--size", "1", "--write-config", config});
  CHECK(again.code == 3);
  CHECK(contains(again.err, "is not overwritten"));
  const Variable no_slurm("SLURM_JOB_ID", nullptr), no_scratch("SCRATCH", nullptr);
  const json report = holdfast_command({"doctor", "--size", "1", "--config", config, "--json"}).json();
  CHECK(report.at("platform") == "slurm");
  CHECK(report.at("reason") == config);
}

TEST_CASE("doctor_reports_wrong_configuration_files_by_name") {
  const ScratchFolder scratch;
  const Said missing = holdfast_command({"doctor", "--config", (scratch / "missing.json").string()});
  CHECK(missing.code == 3);
  CHECK(contains(missing.err, "missing.json"));
  write_file(scratch / "list.json", "[1]");
  CHECK(holdfast_command({"doctor", "--config", (scratch / "list.json").string()}).code == 2);
  write_file(scratch / "typo.json", R"({"platform": "kagle"})");
  const Said typo = holdfast_command({"doctor", "--config", (scratch / "typo.json").string()});
  CHECK(typo.code == 2);
  CHECK(contains(typo.err, "nearest is kaggle"));
}

TEST_CASE("a_folder_in_memory_is_reported_as_lost_with_the_machine") {
  struct stat status {};
  if (::stat("/dev/shm", &status) != 0) return;
  const Said said = holdfast_command({"doctor", "/dev/shm/holdfast-doctor-test", "--size", "1"});
  if (!contains(said.out, "tmpfs")) return;  // no memory file system is mounted there
  CHECK(said.code == 1);
  CHECK(contains(said.out, "is in memory (tmpfs)"));
  CHECK(contains(said.out, "name a folder on a disk"));
}
