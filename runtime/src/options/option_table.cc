#include "options/option_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <stdexcept>

#include "holdfast/storage/text/nearest_name.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/units.h"

namespace holdfast {
namespace {

// More cores than any machine has; OpenMP hangs if the system gives it fewer threads than requested.
constexpr int kMostThreads = 1024;

[[noreturn]] void wrong(const std::string& what) { throw std::invalid_argument(what); }

template <class Integer>
Option number(std::string_view name, std::string_view meaning, Integer SessionOptions::*field,
              Integer most = std::numeric_limits<Integer>::max()) {
  return {name,
          "NUMBER",
          JsonType::whole_number,
          meaning,
          [field, most](SessionOptions& options, const std::string& text) {
            Integer value{};
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (error != std::errc() || end != text.data() + text.size() || value < Integer{} || value > most) {
              wrong(fmt::format("'{}' is not a whole number from 0 to {}", text, most));
            }
            options.*field = value;
          },
          [field](const SessionOptions& options) { return std::to_string(options.*field); }};
}

Option text(std::string_view name, std::string_view argument, std::string_view meaning,
            std::string SessionOptions::*field, std::function<void(const std::string&)> check) {
  return {name,
          argument,
          JsonType::string,
          meaning,
          [field, check](SessionOptions& options, const std::string& value) {
            check(value);
            options.*field = value;
          },
          [field](const SessionOptions& options) { return options.*field; }};
}

template <class T>
using Parse = std::function<T(const std::string&)>;

template <class T>
Option value(std::string_view name, std::string_view argument, std::string_view meaning,
             OptionValue<T> SessionOptions::*field, Parse<T> parse,
             std::function<void(const OptionValue<T>&)> check = {}) {
  const auto set = [field, parse, check](SessionOptions& options, const std::string& text) {
    options.*field = OptionValue<T>(parse(text), text);
    if (check) check(options.*field);
  };
  return {.name = name,
          .argument = argument,
          .type = JsonType::string,
          .meaning = meaning,
          .set = set,
          .get = [field](const SessionOptions& options) { return (options.*field).text(); },
          .read =
              [field, set, check](SessionOptions& options) {
                if ((options.*field).is_text()) return set(options, (options.*field).text());
                if (check) check(options.*field);
              }};
}

// Empty means that the program chooses.
Option optional_precision(std::string_view name, std::string_view meaning, const Parse<Precision>& parse) {
  const auto set = [parse](SessionOptions& options, const std::string& text) {
    options.precision.reset();
    if (!text.empty()) options.precision = OptionValue<Precision>(parse(text), text);
  };
  return {.name = name,
          .argument = "PRECISION",
          .type = JsonType::string,
          .meaning = meaning,
          .set = set,
          .get = [](const SessionOptions& options) { return options.precision ? options.precision->text() : ""; },
          .read =
              [set](SessionOptions& options) {
                if (options.precision && options.precision->is_text()) set(options, options.precision->text());
              }};
}

Option flag(std::string_view name, std::string_view meaning, bool SessionOptions::*field) {
  return {name,
          "",
          JsonType::boolean,
          meaning,
          [field](SessionOptions& options, const std::string& value) {
            const bool yes = value == "true" || value == "1" || value == "yes" || value == "on";
            const bool no = value == "false" || value == "0" || value == "no" || value == "off";
            if (!yes && !no) wrong(fmt::format("'{}' is neither true nor false", value));
            options.*field = yes;
          },
          [field](const SessionOptions& options) { return options.*field ? "true" : "false"; }};
}

Option list(std::string_view name, std::string_view meaning, std::vector<std::string> SessionOptions::*field) {
  return {name,
          "PATTERN",
          JsonType::list,
          meaning,
          [field](SessionOptions& options, const std::string& value) {
            if (value.empty()) wrong("an empty pattern matches nothing");
            (options.*field).push_back(value);
          },
          [field](const SessionOptions& options) { return fmt::format("{}", fmt::join(options.*field, ",")); },
          [field](SessionOptions& options) { (options.*field).clear(); }};
}

// "none" replaces the platform's default by no folder.
Option folders(std::string_view name, std::string_view meaning, std::vector<std::string> SessionOptions::*field,
               std::function<void(const std::string&)> check) {
  Option option = list(name, meaning, field);
  option.argument = "PATH";
  option.set = [field, check](SessionOptions& options, const std::string& value) {
    check(value);
    if (value != "none") (options.*field).push_back(value);
  };
  return option;
}

template <class T>
Parse<T> one_of(std::vector<T> values) {
  return [values = std::move(values)](const std::string& text) {
    std::vector<std::string> words;
    for (const T value : values) {
      if (to_string(value) == text) return value;
      words.push_back(to_string(value));
    }
    wrong(fmt::format("'{}' is not one of {}; the nearest is {}", text, fmt::join(words, ", "),
                      storage::nearest_name(text, words).name));
  };
}

void check_run(const std::string& name) {
  if (!storage::is_utf8(name) || storage::has_control_characters(name)) {
    wrong(fmt::format("{} cannot name a run: a name is UTF-8 without line feeds and other control characters",
                      storage::in_quotes(name)));
  }
  if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos || name.size() > 200) {
    wrong(
        fmt::format("'{}' cannot name a run: it becomes a folder, so it has no '/', does not begin with '.' and is at "
                    "most 200 bytes long",
                    name));
  }
}

detail::Duration parse_duration(const std::string& text) {
  const auto duration = storage::parse_duration(text);
  if (!duration) wrong(fmt::format("'{}' is not a duration such as 30s, 10min or 2h", text));
  return *duration;
}

void check_duration(const OptionValue<detail::Duration>& duration) {
  if (*duration < detail::Duration::zero()) wrong(fmt::format("'{}' is negative", duration.text()));
}

void check_every(const OptionValue<SaveEvery>& every) {
  if (every->time < detail::Duration::zero()) wrong(fmt::format("'{}' is negative", every.text()));
}

void check_on_non_finite(const OptionValue<OnNonFinite>& choice) {
  if (choice->act != OnNonFinite::Act::rollback || choice->steps > 0) return;
  wrong("a rollback needs the number of steps that it may undo, at least 1");
}

void check_silence(const OptionValue<detail::Duration>& duration) {
  // Heartbeats come every quarter of a second, and any machine may be late by some.
  if (*duration < std::chrono::seconds(1)) wrong(fmt::format("'{}' is less than 1s", duration.text()));
}

void check_platform(const std::string& name) {
  std::vector<std::string> names = platform_names();
  if (name == "auto" || std::find(names.begin(), names.end(), name) != names.end()) return;
  names.emplace_back("auto");
  wrong(fmt::format("'{}' is not a platform; the nearest is {} (all: {})", name,
                    storage::nearest_name(name, names).name, fmt::join(names, ", ")));
}

void check_notices(const std::string& cloud) {
  for (const char* known : {"none", "auto", "ec2", "gce", "azure"}) {
    if (cloud == known) return;
  }
  wrong(fmt::format("'{}' is not a cloud whose preemption notices are known: choose none, auto, ec2, gce or azure",
                    cloud));
}

void check_version(const std::string& version) {
  if (version.empty()) wrong("the version is empty; write its number, such as 42");
}

}  // namespace

void check_path(const std::string& path) {
  if (path.empty()) wrong("the path is empty");
  if (path == "~" || path.substr(0, 2) == "~/") {
    // A shell expands it only at the beginning of a word, and nothing expands it in a configuration file.
    wrong(
        fmt::format("'{0}' begins with ~, which no shell replaced by your home folder: write the folder's whole path, "
                    "or ./{0} for a folder of that name",
                    path));
  }
}

const std::vector<Option>& option_table() {
  static const std::vector<Option> rows = {
      text("config", "PATH", "a JSON file of these options: { \"every\": \"10min\", \"keep\": 5 }",
           &SessionOptions::config, check_path),
      text("platform", "NAME", "auto, or the platform whose defaults apply: kaggle, colab, slurm, …",
           &SessionOptions::platform, check_platform),
      text("dir", "PATH", "the folder that holds the runs; by default where the platform keeps files",
           &SessionOptions::dir, check_path),
      folders("mirror",
              "a folder that receives copies of the versions in the background, such as a mounted Drive, and that is "
              "searched at the start; repeatable; none: no mirror",
              &SessionOptions::mirror, check_path),
      folders("search",
              "a folder below which earlier output of this run is looked for at the start; repeatable; none: nowhere",
              &SessionOptions::search, check_path),
      text("run", "NAME", "the name of the run, and of its folder there", &SessionOptions::run, check_run),
      number("seed", "seed of all random generators and of shuffling", &SessionOptions::seed),
      value<SaveEvery>("every", "INTERVAL", "when to save: 500, 10min, 2h, 1epoch, several with commas, or never",
                       &SessionOptions::every, parse_save_every, check_every),
      number("keep", "versions to keep; 0 keeps all", &SessionOptions::keep),
      value<DeviceKind>("device", "DEVICE", "cpu, cuda or auto", &SessionOptions::device,
                        one_of<DeviceKind>({DeviceKind::cpu, DeviceKind::cuda, DeviceKind::automatic})),
      optional_precision(
          "precision", "precision of pipelines that use Amp: auto, fp32, bf16 or fp16 (default: the program's choice)",
          one_of<Precision>({Precision::automatic, Precision::fp32, Precision::bf16, Precision::fp16})),
      text("from", "VERSION", "resume from this version instead of the newest, once; again:VERSION does so once more",
           &SessionOptions::from, check_version),
      flag("fresh", "start from scratch even if versions exist", &SessionOptions::fresh),
      flag("deterministic",
           "use only kernels that repeat exactly, also on GPUs: slower; an error for operations without one",
           &SessionOptions::deterministic),
      flag("take-over", "take over the run even if another process appears to be using it", &SessionOptions::take_over),
      number("threads", "intra-op threads; 0: OMP_NUM_THREADS if set, else as saved, else as many as fit",
             &SessionOptions::threads, kMostThreads),
      value<detail::Duration>("time-limit", "DURATION",
                              "save and stop in time before the program has run this long; 0: the platform's limit",
                              &SessionOptions::time_limit, parse_duration, check_duration),
      value<detail::Duration>("time-margin", "DURATION", "the time to keep free between the last save and the limit",
                              &SessionOptions::time_margin, parse_duration, check_duration),
      text(
          "notices", "CLOUD",
          "save and stop when the cloud announces that it takes the machine back: ec2, gce, azure; auto: the one whose "
          "machine this is; none",
          &SessionOptions::notices, check_notices),
      value<detail::Duration>("join-within", "DURATION", "how long to wait for the other ranks at the start",
                              &SessionOptions::join_within, parse_duration, check_duration),
      value<detail::Duration>("silence", "DURATION", "stop all ranks if one of them sends nothing for this long",
                              &SessionOptions::silence, parse_duration, check_silence),
      value<detail::Duration>("say-waiting", "DURATION", "log a slow rank once after waiting this long",
                              &SessionOptions::say_waiting, parse_duration, check_duration),
      value<LoadMode>("load", "MODE",
                      "exact: checkpoint and program must hold the same names; subset: load the names that both hold",
                      &SessionOptions::load, one_of<LoadMode>({LoadMode::exact, LoadMode::subset})),
      list("allow-missing",
           "glob of names allowed to be missing from the checkpoint; repeatable (in the environment: a,b)",
           &SessionOptions::allow_missing),
      list("allow-unexpected",
           "glob of names in the checkpoint that the program may lack; repeatable (in the environment: a,b)",
           &SessionOptions::allow_unexpected),
      list("allow-mismatch",
           "glob of names allowed to differ in shape or dtype; they keep the program's values; repeatable",
           &SessionOptions::allow_mismatch),
      flag("allow-dataset-change", "accept another dataset size in the middle of an epoch, and start that epoch again",
           &SessionOptions::allow_dataset_change),
      value<OnNonFinite>(
          "on-nonfinite", "ACTION",
          "if tensors become NaN or infinite: note, stop, or rollback:K, which undoes the last steps (at most K)",
          &SessionOptions::on_nonfinite, parse_on_non_finite, check_on_non_finite),
  };
  return rows;
}

}  // namespace holdfast
