// holdfast doctor: where am I, and will a run here keep its work? Prints what was detected and why, tries the folders
// for real, and ends with what to do.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "doctor/configuration.h"
#include "doctor/machine_checks.h"
#include "doctor/other_process.h"
#include "doctor/place_checks.h"
#include "doctor/place_probe.h"
#include "holdfast/runtime/platform/machine_age.h"
#include "inspect/run_folder.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::Path;
using storage::Result;
using storage::Status;

namespace {

struct DoctorOptions {
  std::vector<std::string> places;
  std::string config;
  std::string write_config;
  std::uint64_t megabytes = 64;
  std::uint64_t patience = 60;  // seconds
  bool json = false;
};

struct Axis {
  const char* name;
  const Finding& finding;
};

std::vector<Axis> axes_of(const Platform& platform) {
  return {{"scheduler", platform.scheduler},
          {"launcher", platform.launcher},
          {"container", platform.container},
          {"cloud", platform.cloud}};
}

std::uint64_t bytes_below(const Path& folder) {
  std::uint64_t sum = 0;
  boost::system::error_code error;
  for (boost::filesystem::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    boost::system::error_code unreadable;
    if (boost::filesystem::is_regular_file(entry->symlink_status(unreadable)))
      sum += boost::filesystem::file_size(entry->path(), unreadable);
  }
  return sum;
}

std::string_view name_of(Grade grade) { return grade == Grade::good ? "good" : grade == Grade::note ? "note" : "bad"; }

ordered_json to_json(const Check& check) {
  return {{"grade", name_of(check.grade)}, {"area", check.area}, {"what", check.what}, {"remedy", check.remedy}};
}

std::string text_of(const Check& check) {
  const auto mark = check.grade == Grade::good   ? styled(Style::good, "ok  ")
                    : check.grade == Grade::note ? styled(Style::marked, "note")
                                                 : styled(Style::bad, "BAD ");
  return fmt::format("  {}  {}: {}\n", mark, printable(check.area), printable(check.what));
}

void print_report(const Platform& platform, const Profile& profile, const Checks& checks) {
  print(fmt::format("platform: {} ({}), because {}\n", styled(Style::bold, profile.title), profile.name,
                    printable(platform.place.reason)));
  for (const auto& [name, finding] : axes_of(platform)) {
    if (!finding.name.empty())
      print(fmt::format("{}: {}, because {}\n", name, finding.name, printable(finding.reason)));
  }
  print(
      fmt::format("default folder of runs: {}, because {}\n", printable(profile.home), printable(profile.home_reason)));
  for (const std::string& mirror : profile.mirrors) print("default mirror: " + printable(mirror) + "\n");
  if (profile.notice) {
    print(fmt::format("notice: SIGTERM {} before the machine goes away\n", storage::format_duration(*profile.notice)));
  }
  print("\n");
  for (const Check& check : checks) print(text_of(check));
  int number = 0;
  for (const Grade grade : {Grade::bad, Grade::note}) {
    for (const Check& check : checks) {
      if (check.grade != grade || check.remedy.empty()) continue;
      if (number == 0) print("\nWhat to do:\n");
      print(fmt::format("  {}. {}: {}\n", ++number, printable(check.area), printable(check.remedy)));
    }
  }
  if (number == 0) print("\nNothing has to be done.\n");
}

// What is mirrored survives its machine; a mirror must do so itself.
Checks checks_of_places(const std::vector<std::string>& places, const std::vector<std::string>& mirrors,
                        const Platform& platform, const Profile& profile, const Surroundings& around,
                        const DoctorOptions& options) {
  Checks checks;
  std::vector<std::string> all = places;
  all.insert(all.end(), mirrors.begin(), mirrors.end());
  for (const std::string& place : all) {
    const bool is_mirrored = !mirrors.empty() && place == places.front();
    const Path folder = absolute_of(place);
    Progress progress("trying " + folder.string());
    progress.update(0, 1);
    const PlaceFacts facts =
        probe_place(folder, options.megabytes << 20, std::chrono::seconds(static_cast<std::int64_t>(options.patience)));
    const Checks found =
        place_checks(folder.string(), facts, mount_of(folder.string(), around.mounts),
                     is_mirrored ? Loss() : loss_in(folder.string(), profile, platform, around.mounts));
    checks.insert(checks.end(), found.begin(), found.end());
  }
  if (const auto& quota = profile.quota) {
    const auto used = in_other_process(
        quota->folder, [&] { return std::to_string(bytes_below(quota->folder)); },
        std::chrono::seconds(static_cast<std::int64_t>(options.patience)));
    if (used) checks.push_back(quota_check(*quota, std::stoull(*used)));
  }
  return checks;
}

Result<int> run_doctor(const DoctorOptions& options) {
  const Surroundings around = look_around();
  const auto configured = read_configuration(options.config, around);
  if (!configured) return configured.status();
  Platform platform = detect(around);
  if (!configured->platform.empty()) platform.place = {configured->platform, configured->platform_from};
  const Profile profile = profile_of(platform.place.name, around);
  std::vector<std::string> places = options.places, mirrors;
  if (places.empty()) {
    places.push_back(configured->dir.empty() ? profile.home : configured->dir);
    const std::vector<std::string> none;
    mirrors = configured->mirrors.value_or(configured->dir.empty() ? profile.mirrors : none);
  }

  const Machine machine = this_machine();
  const MachineLimits limits = limits_of(machine, around);
  const auto age = machine_age(around);
  Checks checks = {time_check(profile, age), processor_check(machine, limits, around.variable("OMP_NUM_THREADS")),
                   memory_check(limits)};
  if (const auto cloud = notices_to_set(platform)) checks.push_back(notices_check(platform, *cloud));
  const auto gpus = list_gpus();
  for (const Check& check :
       gpu_checks(gpus, driver_cuda_version(), gpus.empty() ? std::nullopt : find_libtorch(around)))
    checks.push_back(check);
  for (const Check& check : checks_of_places(places, mirrors, platform, profile, around, options))
    checks.push_back(check);

  const bool bad = std::any_of(checks.begin(), checks.end(), [](const Check& one) { return one.grade == Grade::bad; });
  const bool writes = !options.write_config.empty() && !bad;
  if (writes) {
    const Status written = write_configuration(options.write_config, platform, profile, places.front(), mirrors);
    if (!written.ok()) return written;
  }
  if (options.json) {
    ordered_json json = {{"platform", profile.name}, {"title", profile.title}, {"reason", platform.place.reason}};
    for (const auto& [name, finding] : axes_of(platform)) {
      json[name] =
          finding.name.empty() ? ordered_json() : ordered_json{{"name", finding.name}, {"reason", finding.reason}};
    }
    json["home"] = profile.home;
    json["mirrors"] = profile.mirrors;
    json["limit_s"] = profile.limit ? ordered_json(profile.limit->count()) : ordered_json();
    json["age_s"] = age ? ordered_json(age->count()) : ordered_json();
    json["cpus"] = limits.cpus;
    json["memory"] = limits.memory;
    json["ok"] = !bad;
    json["checks"] = ordered_json::array();
    for (const Check& check : checks) json["checks"].push_back(to_json(check));
    print_json(json);
  } else {
    print_report(platform, profile, checks);
    if (writes) {
      print(fmt::format("\nWrote {0}: start your program with --holdfast.config {0}\n", options.write_config));
    } else if (!options.write_config.empty()) {
      print(fmt::format("\n{} was not written, because a check is bad\n", options.write_config));
    }
  }
  return bad ? kFound : kOk;
}

}  // namespace

void add_doctor(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand(
      "doctor",
      "Check this machine before a run: which platform it is and why, what it grants, and whether a folder keeps "
      "checkpoints. It writes, reads and removes a small run of its own in each folder.");
  verb->add_option(
          "PLACE", options->places,
          "folders to try; by default where programs keep runs and copies here (HOLDFAST_DIR and HOLDFAST_MIRROR, the "
          "configuration file, or the platform's folders)")
      ->type_name("");
  verb->add_option("--config", options->config, "the configuration file that your program uses")->type_name("FILE");
  verb->add_option("--write-config", options->write_config, "write the configuration file that this machine needs")
      ->type_name("FILE");
  verb->add_option("--size", options->megabytes, "MiB to write in each folder (default 64)")
      ->type_name("MIB")
      ->check(CLI::Range(1, 65536));
  verb->add_option("--patience", options->patience, "seconds after which a folder counts as hanging (default 60)")
      ->type_name("SECONDS")
      ->check(CLI::Range(1, 3600));
  verb->add_flag("--json", options->json, "print one JSON object instead of text");
  verb->footer(help_footer(
      "  holdfast doctor\n  holdfast doctor /content/drive/MyDrive/runs\n  holdfast doctor --write-config colab.json",
      "  platform, title, reason, scheduler, launcher, container, cloud (each null, or name and reason), home, "
      "mirrors[],\n"
      "  limit_s and age_s (null: unknown), cpus, memory (bytes), ok (false: a check is bad),\n"
      "  checks[]: grade (good, note, bad), area, what, remedy\n"
      "  an error: error: code, message, exit",
      "  0  nothing is bad\n  1  a check is bad: a run would not start, or lose work\n  2  wrong command line\n"
      "  3  the configuration file cannot be read or written"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_doctor(*options); };
  });
}

}  // namespace holdfast::tools
