#include "holdfast/runtime/options.h"

#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/save_policy.h"
#include "holdfast/runtime/units.h"

using holdfast::Boundary;
using holdfast::decide;
using holdfast::Error;
using holdfast::LastSave;
using holdfast::OptionsRead;
using holdfast::parse_duration;
using holdfast::parse_save_every;
using holdfast::SaveDecision;
using holdfast::SaveEvery;
using holdfast::SessionOptions;
using namespace std::chrono_literals;

namespace {

struct CommandLine {
  OptionsRead read;
  std::vector<std::string> left;
};

CommandLine read(std::vector<std::string> arguments, SessionOptions code = {},
                 std::vector<std::string> variables = {}) {
  arguments.insert(arguments.begin(), "/usr/bin/train");
  std::vector<char*> argv, environment;
  for (auto& argument : arguments) argv.push_back(argument.data());
  for (auto& variable : variables) environment.push_back(variable.data());
  int argc = static_cast<int>(argv.size());
  argv.push_back(nullptr);
  environment.push_back(nullptr);
  CommandLine result{holdfast::read_options(argc, argv.data(), code, environment.data()), {}};
  for (int i = 0; i < argc; ++i) result.left.push_back(argv[i]);
  CHECK(argv[argc] == nullptr);
  return result;
}

std::string refusal(const std::vector<std::string>& arguments, const SessionOptions& code = {},
                    const std::vector<std::string>& variables = {}) {
  try {
    read(arguments, code, variables);
  } catch (const Error& error) {
    CHECK(error.code() == holdfast::storage::StatusCode::invalid);
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const holdfast::OptionInForce& in_force(const OptionsRead& options, const std::string& name) {
  for (const auto& option : options.in_force) {
    if (option.name == name) return option;
  }
  FAIL("no option " + name);
  return options.in_force.front();
}

}  // namespace

TEST_CASE("the_session_takes_its_options_out_of_argv_and_leaves_the_rest_in_order") {
  const auto [options, left] = read({"--epochs", "3", "--holdfast.every", "500", "data", "--holdfast.seed=7",
                                     "--holdfast.fresh", "-v", "--", "--holdfast.keep", "9"});
  CHECK(left ==
        std::vector<std::string>{"/usr/bin/train", "--epochs", "3", "data", "-v", "--", "--holdfast.keep", "9"});
  CHECK(options.values.every == "500");
  CHECK(options.values.seed == 7);
  CHECK(options.values.fresh);
  CHECK(options.values.keep == 3);
  CHECK(options.values.run == "train");
  CHECK_FALSE(options.help);
}

TEST_CASE("command_line_wins_over_environment_over_code_over_default") {
  const auto [options, left] =
      read({"--holdfast.every=3h", "--holdfast.fresh=false", "--holdfast.allow-missing", "head.*",
            "--holdfast.allow-missing=tail.*"},
           {.seed = 42, .every = "1h", .keep = 5, .allow_missing = {"code.*"}, .allow_unexpected = {"code.*"}},
           {"HOLDFAST_EVERY=2h", "HOLDFAST_KEEP=7", "HOLDFAST_FRESH=1", "HOLDFAST_TAKE_OVER=1",
            "HOLDFAST_DEVICE=", "HOLDFAST_ALLOW_UNEXPECTED=a.*,b.*", "HOLDFAST_ALLOW_MISSING=env.*", "HOME=/root",
            "HOLDFAST_SOMETHING_ELSE=1"});
  CHECK(options.values.every == "3h");
  CHECK(options.values.keep == 7);
  CHECK(options.values.seed == 42);
  CHECK_FALSE(options.values.fresh);
  CHECK(options.values.take_over);
  CHECK(options.values.device == "auto");
  CHECK(options.values.allow_missing == std::vector<std::string>{"head.*", "tail.*"});
  CHECK(options.values.allow_unexpected == std::vector<std::string>{"a.*", "b.*"});
  CHECK(in_force(options, "every").origin == "command line");
  CHECK(in_force(options, "keep").origin == "environment");
  CHECK(in_force(options, "seed").origin == "code");
  CHECK(in_force(options, "dir").origin == "default");
}

TEST_CASE("an_option_that_is_none_is_refused_with_the_nearest_name") {
  CHECK(
      contains(refusal({"--holdfast.evry", "5"}), "--holdfast.evry is not an option; the nearest is --holdfast.every"));
  CHECK(contains(refusal({"--holdfast.takeover"}), "--holdfast.take-over"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_EVRY=5"}), "HOLDFAST_EVRY in the environment"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_EVRY=5"}), "HOLDFAST_EVERY"));
}

TEST_CASE("a_wrong_value_is_refused_with_its_option_and_origin") {
  CHECK(contains(refusal({"--holdfast.seed", "abc"}), "--holdfast.seed: 'abc' is not a whole number"));
  CHECK(contains(refusal({"--holdfast.seed=-1"}), "--holdfast.seed: '-1'"));
  CHECK(contains(refusal({"--holdfast.keep=3x"}), "--holdfast.keep: '3x'"));
  CHECK(contains(refusal({"--holdfast.threads=-2"}), "--holdfast.threads: '-2'"));
  CHECK(contains(refusal({"--holdfast.device", "gpu"}), "the nearest is cpu"));
  CHECK(contains(refusal({"--holdfast.every", "soon"}), "--holdfast.every: 'soon' is not an interval"));
  CHECK(contains(refusal({"--holdfast.run", "a/b"}), "--holdfast.run: 'a/b'"));
  CHECK(contains(refusal({"--holdfast.dir", "--epochs"}), "--holdfast.dir needs a value"));
  CHECK(contains(refusal({"--holdfast.dir"}), "--holdfast.dir needs a value: --holdfast.dir PATH"));
  CHECK(contains(refusal({"--holdfast.fresh=maybe"}), "--holdfast.fresh: 'maybe'"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_LOAD=some"}), "HOLDFAST_LOAD: 'some'"));
  CHECK(contains(refusal({}, {.every = "often"}), "SessionOptions, every: 'often'"));
  CHECK(contains(refusal({"--holdfast.from="}), "--holdfast.from: the version is empty"));
  CHECK(contains(refusal({"--holdfast.threads=100000"}), "--holdfast.threads: '100000' is not"));
}

TEST_CASE("a_version_to_go_on_from_and_a_fresh_start_are_not_both_taken") {
  CHECK(contains(refusal({"--holdfast.from", "42"}, {}, {"HOLDFAST_FRESH=1"}),
                 "--holdfast.from 42 (command line) and --holdfast.fresh (environment) contradict each other"));
}

TEST_CASE("help_lists_every_option_with_default_value_and_origin") {
  const auto [options, left] = read({"--holdfast.help", "--holdfast.keep", "8"}, {.run = "fashion"});
  CHECK(options.help);
  const auto text = holdfast::help_text(options);
  for (const char* name : {"dir", "run", "seed", "every", "keep", "device", "from", "fresh", "deterministic",
                           "take-over", "threads", "load", "allow-missing", "allow-unexpected", "help"}) {
    CHECK(contains(text, std::string("--holdfast.") + name + " "));
  }
  CHECK(contains(text, "now 8 (command line), default 3"));
  CHECK(contains(text, "now fashion (code), default train"));
  CHECK(contains(text, "now 10min (default), default 10min"));
}

TEST_CASE("intervals_are_read_as_people_write_them") {
  CHECK(parse_save_every("500") == SaveEvery{500, 0, 0s});
  CHECK(parse_save_every("500steps") == SaveEvery{500, 0, 0s});
  CHECK(parse_save_every("1 step") == SaveEvery{1, 0, 0s});
  CHECK(parse_save_every("10min") == SaveEvery{0, 0, 10min});
  CHECK(parse_save_every("30s") == SaveEvery{0, 0, 30s});
  CHECK(parse_save_every("2h") == SaveEvery{0, 0, 2h});
  CHECK(parse_save_every("1.5h") == SaveEvery{0, 0, 90min});
  CHECK(parse_save_every("1epoch") == SaveEvery{0, 1, 0s});
  CHECK(parse_save_every("500,10min, 2epochs") == SaveEvery{500, 2, 10min});
  CHECK(parse_save_every("never") == SaveEvery{});
  for (const char* text : {"", "0", "0s", "-5", "10m", "5x", "1.5", "500,", "500,600", "min", "1e3", "99999999999d",
                           "18446744073709551616", "never,5"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_save_every(text), Error);
  }
  CHECK(to_string(parse_save_every("500,10min,2epochs")) == "500 steps, 2 epochs, 10 min");
  CHECK(to_string(parse_save_every("1")) == "step");
  CHECK(to_string(SaveEvery{}) == "never");
}

TEST_CASE("saves_are_due_when_the_table_says") {
  const std::chrono::steady_clock::time_point start{1000s};
  struct Row {
    const char* every;
    LastSave last;  // step, epochs, time
    Boundary here;  // step, epochs, now, last
    holdfast::StepOrder requests;
    bool save, stop;
    const char* reason;
  };
  const Row rows[] = {
      {"500", {0, 0, start}, {499, 0, start, false}, {}, false, false, ""},
      {"500", {0, 0, start}, {500, 0, start, false}, {}, true, false, "every 500 steps"},
      {"500", {500, 0, start}, {500, 0, start, false}, {}, false, false, ""},
      {"500", {730, 0, start}, {999, 0, start, false}, {}, false, false, ""},
      {"500", {730, 0, start}, {1000, 0, start, false}, {}, true, false, "every 500 steps"},
      {"500", {730, 0, start}, {1002, 0, start, false}, {}, true, false, "every 500 steps"},
      {"1", {0, 0, start}, {1, 0, start, false}, {}, true, false, "every step"},
      {"10min", {0, 0, start}, {7, 0, start + 599s, false}, {}, false, false, ""},
      {"10min", {0, 0, start}, {7, 0, start + 600s, false}, {}, true, false, "every 10 min"},
      {"10min", {7, 0, start}, {7, 0, start + 600s, false}, {}, false, false, ""},
      {"1epoch", {0, 0, start}, {938, 0, start, false}, {}, false, false, ""},
      {"1epoch", {0, 0, start}, {938, 1, start, false}, {}, true, false, "every epoch"},
      {"2epochs", {938, 1, start}, {1876, 2, start, false}, {}, true, false, "every 2 epochs"},
      {"2epochs", {1876, 2, start}, {2814, 3, start, false}, {}, false, false, ""},
      {"1epoch", {938, 0, start}, {938, 1, start, false}, {}, true, false, "every epoch"},
      {"never", {0, 0, start}, {938, 1, start + 24h, false}, {}, false, false, ""},
      {"never", {0, 0, start}, {938, 1, start, true}, {}, true, false, "end"},
      {"500", {500, 0, start}, {1000, 1, start, true}, {}, true, false, "end"},
      {"500", {1000, 1, start}, {1000, 1, start, true}, {}, false, false, ""},
      {"500", {3, 0, start}, {4, 0, start, false}, {.stop = "SIGTERM"}, true, true, "SIGTERM"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.stop = "SIGTERM"}, false, true, "SIGTERM"},
      {"500", {3, 0, start}, {4, 0, start, true}, {.stop = "SIGTERM"}, true, false, "end"},
      {"500", {4, 0, start}, {4, 0, start, true}, {.stop = "SIGTERM"}, false, false, ""},
      {"500", {3, 0, start}, {4, 0, start, false}, {.save = "SIGUSR1"}, true, false, "SIGUSR1"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.save = "save_now"}, true, false, "save_now"},
      {"500", {4, 0, start}, {4, 0, start, false}, {.stop = "SIGINT", .save = "SIGUSR1"}, true, true, "SIGINT"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.every, row.last.step, row.last.epochs, row.here.step, row.here.epochs, row.here.last);
    const auto decision = decide(parse_save_every(row.every), row.here, row.last, row.requests);
    CHECK(decision.save == row.save);
    CHECK(decision.stop == row.stop);
    CHECK(decision.reason == row.reason);
  }
}

TEST_CASE("quantities_carry_their_units") {
  using holdfast::format_bytes;
  using holdfast::format_duration;
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1 KiB");
  CHECK(format_bytes(1536) == "1.5 KiB");
  CHECK(format_bytes(19293798) == "18.4 MiB");
  CHECK(format_bytes((std::uint64_t{1} << 30) - 1) == "1 GiB");
  CHECK(format_bytes(std::uint64_t{7} << 30) == "7 GiB");
  CHECK(format_bytes(~std::uint64_t{0}) == "16 EiB");
  CHECK(format_duration(0s) == "0 s");
  CHECK(format_duration(850us) == "850 µs");
  CHECK(format_duration(12345us) == "12.3 ms");
  CHECK(format_duration(999600us) == "1 s");
  CHECK(format_duration(4560ms) == "4.56 s");
  CHECK(format_duration(59990ms) == "1 min");
  CHECK(format_duration(187s) == "3 min 07 s");
  CHECK(format_duration(3599700ms) == "1 h");
  CHECK(format_duration(125min) == "2 h 05 min");
  CHECK(format_duration(76h) == "3 d 04 h");
  CHECK(holdfast::format_count(0) == "0");
  CHECK(holdfast::format_count(999) == "999");
  CHECK(holdfast::format_count(1000) == "1,000");
  CHECK(holdfast::format_count(1234567) == "1,234,567");
  CHECK(parse_duration("90 seconds") == 90s);
  CHECK(parse_duration("250ms") == 250ms);
  CHECK(parse_duration("2days") == 48h);
  CHECK_FALSE(parse_duration("5"));
  CHECK_FALSE(parse_duration("1.2.3s"));
  CHECK_FALSE(parse_duration("5 fortnights"));
}
