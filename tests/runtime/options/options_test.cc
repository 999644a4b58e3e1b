#include "holdfast/runtime/options/options.h"

#include <boost/filesystem/operations.hpp>
#include <fstream>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "options/config_file.h"
#include "policy/save_policy.h"
#include "storage/scratch_folder.h"

using holdfast::Boundary;
using holdfast::decide;
using holdfast::Error;
using holdfast::LastSave;
using holdfast::OptionsRead;
using holdfast::parse_save_every;
using holdfast::SaveDecision;
using holdfast::SaveEvery;
using holdfast::SessionOptions;
using namespace std::chrono_literals;
using namespace std::string_literals;

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

// A test's own configuration file, read as the user would pass it.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text, const std::string& name = "train.json")
      : path_((folder_ / name).string()) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  const std::string& path() const { return path_; }
  std::vector<std::string> argument() const { return {"--holdfast.config", path_}; }

 private:
  ScratchFolder folder_;
  std::string path_;
};

OptionsRead read_file(const std::string& text) { return read(ConfigFile(text).argument()).read; }

// Without the path if the sentence begins with it: ":4: …".
std::string refused(const std::string& text) {
  const ConfigFile file(text);
  const auto sentence = refusal(file.argument());
  return sentence.rfind(file.path(), 0) == 0 ? sentence.substr(file.path().size()) : sentence;
}

const holdfast::OptionInForce& in_force(const OptionsRead& options, const std::string& name) {
  for (const auto& option : options.in_force) {
    if (option.name == name) return option;
  }
  FAIL("no option " + name);
  return options.in_force.front();
}

}  // namespace

TEST_CASE("a_command_line_that_was_read_before_can_be_read_again") {
  std::string program = "/usr/bin/train", mine = "--epochs", ours = "--holdfast.run=a";
  char* argv[] = {program.data(), mine.data(), ours.data(), nullptr};
  char nothing[] = "";
  char* environment[] = {nothing, nullptr};
  for (int i = 0; i < 2; ++i) {
    int argc = 3;  // as main() received it, because the program kept its own count
    (void)holdfast::read_options(argc, argv, {}, environment);
    CHECK(argc == 2);
    CHECK(argv[argc] == nullptr);
  }
}

TEST_CASE("the_session_takes_its_options_out_of_argv_and_leaves_the_rest_in_order") {
  const auto [options, left] = read({"--epochs", "3", "--holdfast.every", "500", "data", "--holdfast.seed=7",
                                     "--holdfast.fresh", "-v", "--", "--holdfast.keep", "9"});
  CHECK(left ==
        std::vector<std::string>{"/usr/bin/train", "--epochs", "3", "data", "-v", "--", "--holdfast.keep", "9"});
  CHECK(options.values.every.text() == "500");
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
  CHECK(options.values.every.text() == "3h");
  CHECK(options.values.keep == 7);
  CHECK(options.values.seed == 42);
  CHECK_FALSE(options.values.fresh);
  CHECK(options.values.take_over);
  CHECK(options.values.device.text() == "auto");
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
  CHECK(contains(refusal({"--holdfast.precision", "fp8"}), "'fp8' is not one of auto, fp32, bf16, fp16;"));
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

TEST_CASE("a_folder_that_no_shell_expanded_and_a_name_that_no_run_can_have_are_refused_at_the_start") {
  for (const std::string path : {"~", "~/runs"}) {
    CHECK(contains(refusal({"--holdfast.dir=" + path}), "no shell replaced by your home folder"));
    CHECK(contains(refusal({}, {}, {"HOLDFAST_DIR=" + path}), "or ./" + path));
    CHECK(contains(refusal({"--holdfast.config", path}), "whole path"));
  }
  for (const std::string path : {"./~", "runs~", "~backup", "/home/~/runs"}) {
    CHECK(read({"--holdfast.dir", path}).read.values.dir == path);
  }
  CHECK(contains(refusal({"--holdfast.run", "two\nlines"}), "\"two\\x0alines\" cannot name a run"));
  CHECK(contains(refusal({"--holdfast.run", "gr\xf6\xdf"}), "\"gr\\xf6\\xdf\" cannot name a run"));
  CHECK(contains(refusal({"--holdfast.run", "\x1b[2J"}), "cannot name a run"));
  CHECK(read({"--holdfast.run", "größe 日本"}).read.values.run == "größe 日本");
}

TEST_CASE("what_to_do_about_nan_is_an_option_of_every_layer_and_a_wrong_one_is_refused_with_the_forms") {
  CHECK(read({}).read.values.on_nonfinite.text() == "note");
  CHECK(read_file(R"({"on-nonfinite": "stop"})").values.on_nonfinite.text() == "stop");
  CHECK(read({"--holdfast.on-nonfinite", "rollback:200"}).read.values.on_nonfinite.text() == "rollback:200");
  CHECK(refusal({"--holdfast.on-nonfinite", "rollback"}) ==
        "--holdfast.on-nonfinite: 'rollback' is not one of note, stop and rollback:K, where K is how many steps may be "
        "skipped, as in rollback:100");
}

TEST_CASE("a_switch_takes_its_value_behind_an_equals_sign_and_never_loses_it") {
  CHECK_FALSE(read({"--holdfast.fresh=false"}).read.values.fresh);
  CHECK(refusal({"--holdfast.fresh", "false"}) ==
        "--holdfast.fresh takes its value behind =, as in --holdfast.fresh=false");
  CHECK(contains(refusal({"--holdfast.take-over", "true", "data"}), "--holdfast.take-over=true"));
  CHECK(read({"--holdfast.fresh", "data"}).left == std::vector<std::string>{"/usr/bin/train", "data"});
  CHECK(read({"--holdfast.help=true"}).read.help);
}

TEST_CASE("a_version_to_go_on_from_and_a_fresh_start_are_not_both_taken") {
  CHECK(contains(refusal({"--holdfast.from", "42"}, {}, {"HOLDFAST_FRESH=1"}),
                 "--holdfast.from 42 (command line) and --holdfast.fresh (environment) contradict each other"));
}

TEST_CASE("help_lists_every_option_with_default_value_and_origin") {
  const auto [options, left] = read({"--holdfast.help", "--holdfast.keep", "8"}, {.run = "fashion"});
  CHECK(options.help);
  const auto text = holdfast::help_text(options);
  for (const char* name :
       {"config",         "dir",     "run",         "seed",          "every",         "keep",
        "device",         "from",    "fresh",       "deterministic", "take-over",     "threads",
        "join-within",    "silence", "say-waiting", "load",          "allow-missing", "allow-unexpected",
        "allow-mismatch", "help"}) {
    CHECK(contains(text, std::string("--holdfast.") + name + " "));
  }
  CHECK(contains(text, "--holdfast.allow-dataset-change "));
  CHECK(contains(text, "--holdfast.on-nonfinite ACTION "));
  CHECK(contains(text, "now 8 (command line), default 3"));
  CHECK(contains(text, "now fashion (code), default train"));
  CHECK(contains(text, "now 10min (default), default 10min"));
}

TEST_CASE("a_configuration_file_sets_options_of_every_type") {
  const auto options = read_file(R"(// what the cluster wants
{
  "dir": "/scratch/runs",        /* of this user */
  "seed": 18446744073709551615,
  "every": 500,
  "keep": 0,
  "from": "42",
  "take-over": true,
  "deterministic": false,
  "precision": "",
  "allow-missing": ["head.*", "tail.*"],
  "allow-unexpected": "ema.*"
}
)");
  CHECK(options.values.dir == "/scratch/runs");
  CHECK(options.values.seed == 18446744073709551615u);
  CHECK(options.values.every.text() == "500");
  CHECK(options.values.keep == 0);
  CHECK(options.values.from == "42");
  CHECK(options.values.take_over);
  CHECK_FALSE(options.values.deterministic);
  CHECK(options.values.allow_missing == std::vector<std::string>{"head.*", "tail.*"});
  CHECK(options.values.allow_unexpected == std::vector<std::string>{"ema.*"});
  CHECK(read_file("{}").values.keep == 3);
  CHECK(read_file("\xef\xbb\xbf{\r\n\"keep\": 7\r\n}\r\n").values.keep == 7);
}

TEST_CASE("environment_and_command_line_win_over_the_file_and_the_file_over_the_code") {
  const ConfigFile file(R"({
  "every": "2h", "seed": 2, "keep": 2, "run": "file",
  "allow-missing": ["file.*"],
  "allow-unexpected": []
})");
  const auto [options, left] =
      read({"--epochs", "3", "--holdfast.config", file.path(), "--holdfast.run=line"},
           {.run = "code", .seed = 1, .every = "1h", .allow_missing = {"code.*"}, .allow_unexpected = {"code.*"}},
           {"HOLDFAST_KEEP=4", "HOLDFAST_RUN=environment"});
  CHECK(left == std::vector<std::string>{"/usr/bin/train", "--epochs", "3"});
  CHECK(options.values.every.text() == "2h");
  CHECK(options.values.seed == 2);
  CHECK(options.values.keep == 4);
  CHECK(options.values.run == "line");
  CHECK(options.values.allow_missing == std::vector<std::string>{"file.*"});
  CHECK(options.values.allow_unexpected.empty());
  CHECK(in_force(options, "every").origin == file.path() + ":2");
  CHECK(in_force(options, "allow-missing").origin == file.path() + ":3");
  CHECK(in_force(options, "allow-unexpected").origin == file.path() + ":4");
  CHECK(in_force(options, "keep").origin == "environment");
  CHECK(in_force(options, "run").origin == "command line");
  CHECK(in_force(options, "dir").origin == "default");
  CHECK(contains(holdfast::help_text(options), "now 2h (" + file.path() + ":2), default 10min"));
}

TEST_CASE("the_strongest_layer_that_names_a_file_is_the_one_that_counts") {
  const ConfigFile code(R"({"keep": 1, "seed": 1})"), environment(R"({"keep": 2})"), line(R"({"keep": 3})");
  const SessionOptions in_code = {.config = code.path()};
  const std::vector<std::string> variable = {"HOLDFAST_CONFIG=" + environment.path()};
  CHECK(read({}, in_code).read.values.keep == 1);
  CHECK(read({}, in_code, variable).read.values.keep == 2);
  CHECK(read({}, in_code, variable).read.values.seed == 0);  // the other file is not read
  const auto options = read({"--holdfast.config=" + line.path()}, in_code, variable).read;
  CHECK(options.values.keep == 3);
  CHECK(options.values.config == line.path());
  CHECK(in_force(options, "config").origin == "command line");
  CHECK(read({"--", "--holdfast.config=" + line.path()}, in_code).read.values.keep == 1);
}

TEST_CASE("a_key_that_is_no_option_is_refused_with_file_line_and_the_nearest") {
  CHECK(contains(refused("{\n  \"keep\": 2,\n  // often\n  \"evry\": 5\n}"),
                 ":4: \"evry\" is not an option of the session; the nearest is \"every\""));
  CHECK(contains(refused("{\"take_over\": true}"),
                 ":1: \"take_over\" is not an option of the session; the nearest is "
                 "\"take-over\""));
  for (const char* elsewhere : {"HOLDFAST_TAKE_OVER", "--holdfast.take-over", "Take-Over"}) {
    CHECK(contains(refused("{\"" + std::string(elsewhere) + "\": true}"), "the nearest is \"take-over\""));
  }
  CHECK(contains(refused("{\"epochs\": 3}"), "the program's own options stay on its command line"));
  CHECK(contains(refused("{\n\"config\": \"other.json\"}"), ":2: \"config\": a configuration file names no other"));
  CHECK(contains(refused("{\"keep\": 2,\n\"seed\": 1,\n\"keep\": 3}"), ":3: \"keep\" is already in line 1"));
}

TEST_CASE("a_value_of_the_wrong_type_is_refused_with_file_line_and_the_right_one") {
  const auto wants = [](const std::string& line) { return refused("{\n" + line + "\n}"); };
  CHECK(wants("\"keep\": \"5\"") == ":2: \"keep\" wants a whole number without quotes, not the string \"5\"");
  CHECK(wants("\"keep\": 2.5") == ":2: \"keep\" wants a whole number, not the number 2.5");
  CHECK(wants("\"keep\": 1e3") == ":2: \"keep\" wants a whole number, not the number 1e3");
  CHECK(wants("\"keep\": true") == ":2: \"keep\" wants a whole number, not true");
  CHECK(wants("\"fresh\": \"yes\"") == ":2: \"fresh\" wants true or false without quotes, not the string \"yes\"");
  CHECK(wants("\"fresh\": 1") == ":2: \"fresh\" wants true or false, not the number 1");
  CHECK(wants("\"every\": 1.5") == ":2: \"every\" wants a string, not the number 1.5");
  CHECK(wants("\"dir\": false") == ":2: \"dir\" wants a string, not false");
  CHECK(contains(wants("\"run\": null"), ":2: \"run\" wants a string, not null; leave the line out"));
  CHECK(wants("\"every\": {\"steps\": 5}") == ":2: \"every\" wants a string, not an object");
  CHECK(wants("\"every\": [\"5\"]") == ":2: \"every\" wants a string, not a list");
  CHECK(contains(wants("\"allow-missing\": [\"a\", 5]"),
                 ":2: \"allow-missing\" wants a string or a list of strings, not "
                 "the number 5"));
  CHECK(contains(wants("\"allow-missing\": [[\"a\"]]"), "not a list"));
  CHECK(contains(wants("\"allow-missing\": 5"), "not the number 5"));
}

TEST_CASE("a_wrong_value_in_a_file_is_refused_with_its_line_as_anywhere_else") {
  CHECK(contains(refused("{\n\"every\": \"soon\"}"), ":2: \"every\": 'soon' is not an interval"));
  CHECK(contains(refused("{\"device\": \"gpu\"}"), ":1: \"device\": 'gpu' is not one of cpu, cuda, auto"));
  CHECK(contains(refused("{\"precision\": 16}"), ":1: \"precision\": '16' is not one of"));
  CHECK(contains(refused("{\"keep\": -1}"), ":1: \"keep\": '-1' is not a whole number from 0 to"));
  CHECK(contains(refused("{\"seed\": 18446744073709551616}"), ":1: \"seed\": '18446744073709551616' is not a whole"));
  CHECK(contains(refused("{\"seed\": -9223372036854775809}"), ":1: \"seed\": '-9223372036854775809' is not a whole"));
  CHECK(contains(refused("{\"allow-missing\": [\"a\", \"\"]}"), ":1: \"allow-missing\": an empty pattern"));
  const ConfigFile file("{\n\"from\": 42\n}");
  CHECK(refusal({"--holdfast.fresh", "--holdfast.config=" + file.path()}) ==
        "--holdfast.from 42 (" + file.path() + ":2) and --holdfast.fresh (command line) contradict each other: give " +
            "one of them");
}

TEST_CASE("a_file_that_is_not_json_is_refused_with_line_and_column_of_the_slip") {
  CHECK(refused("{\n  \"keep\": 2\n  \"seed\": 1\n}") == ":3:3: a comma is missing before \"seed\"");
  CHECK(refused("{\n  \"allow-missing\": [\"ä\" \"b\"]\n}") == ":2:25: a comma is missing before \"b\"");
  CHECK(refused("{\n  \"keep\": 2,\n}") == ":3:1: nothing follows the last comma: remove it before }");
  CHECK(refused("{\"allow-missing\": [\"a\",]}") == ":1:24: nothing follows the last comma: remove it before ]");
  CHECK(contains(refused("{\n  every: 5\n}"), ":2:3: every is not JSON: keys and strings need double quotes"));
  CHECK(contains(refused("{\n  # often\n}"), ":2:3: # is not JSON"));
  CHECK(contains(refused("{\n  \"fresh\": True\n}"), ":2:12: True is not JSON"));
  CHECK(contains(refused("{\n  “keep”: 2\n}"), ":2:3: “keep” is not JSON"));
  CHECK(contains(refused("{\"keep\": 2 true}"), ":1:12: a comma is missing before true"));
  CHECK(contains(refused("\xef\xbb\xbf{\"every\" 5}"), ":1:10: unexpected number literal"));
  CHECK(contains(refused("{\"every\" 5}"), ":1:10: unexpected number literal; expected ':'"));
  CHECK(contains(refused("{\"every\": }"), ":1:11: unexpected '}'"));
  CHECK(contains(refused("{\"allow-missing\": [\"a\"}"), ":1:23: unexpected '}'; expected ']'"));
  CHECK(contains(refused("{} {}"), ":1:4: unexpected '{'; expected end of input"));
  CHECK(refused("{\n  \"every\": \"10min,\n  \"keep\": 2\n}") ==
        ":2:19: a string does not end in its line: '\"' is missing");
  CHECK(refused("{\"every\": \"10min") == ":1:17: a string does not end in its line: '\"' is missing");
  CHECK(refused("{\n  \"keep\": 2\n") == ":3:1: the file ends too early: '}' is missing");
  CHECK(refused("{\"allow-missing\": [\"a\"") == ":1:23: the file ends too early: ']' is missing");
  CHECK(contains(refused("{ /* often \n}"), "invalid comment; missing closing '*/'"));
  CHECK(contains(refused("{\"run\": \"\xff\"}"), ":1:10: a string is not UTF-8"));
  CHECK(contains(refused("{\n\0}"s), ":2:1: a NUL byte"));
  for (const char* empty : {"", "  \n", "// nothing yet\n"}) {
    CHECK(contains(refused(empty), "the file is empty: a configuration file is one JSON object"));
  }
  CHECK(contains(refused("\n[\"every\", 5]"),
                 ":2: a configuration file is one JSON object, such as { \"every\": \"10min\" }, "
                 "not a list"));
  CHECK(contains(refused("\"every\""), "not the string \"every\""));
}

TEST_CASE("only_what_stands_in_the_file's_own_object_is_an_entry") {
  const auto entries =
      holdfast::parse_config("{\"a\": {\"b\": [1, {\"a\": 2}]},\n\"c\": [{\"a\": 3}, [4], \"d\"]}", "f");
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].key == "a");
  CHECK(entries[0].value.type == holdfast::JsonType::object);
  CHECK(entries[0].elements.empty());
  CHECK(entries[1].key == "c");
  CHECK(entries[1].line == 2);
  REQUIRE(entries[1].elements.size() == 3);
  CHECK(entries[1].elements[0].type == holdfast::JsonType::object);
  CHECK(entries[1].elements[1].type == holdfast::JsonType::list);
  CHECK(entries[1].elements[2].text == "d");
}

TEST_CASE("a_file_that_ends_anywhere_too_early_is_refused_and_never_half_used") {
  const std::string whole =
      "{ // c\n\"keep\": 25, \"fresh\": true, \"every\": \"5s\", \"allow-missing\": [\"a\", \"\\u00e4\"]}";
  CHECK(holdfast::parse_config(whole, "f").size() == 4);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(whole.substr(0, size));
    CHECK_THROWS_AS(holdfast::parse_config(whole.substr(0, size), "f"), Error);
  }
}

TEST_CASE("whatever_a_file_holds_it_has_entries_or_is_refused_with_its_line") {
  const std::string whole =
      "{\t// c\n\"keep\": 25, /* c */ \"fresh\": true,\n\"every\": \"5s\", \"a\": [\"\\u00e4\", -1.5e3, null, {\"b\": "
      "0}]}\n";
  const std::string bytes = "\0\x01\n\r\t \"'{}[]:,/*\\#tfn019.-eäx\xff"s;
  int entries = 0, refusals = 0;
  const auto check = [&](const std::string& text) {
    CAPTURE(text);
    try {
      holdfast::parse_config(text, "f");
      ++entries;
    } catch (const Error& error) {
      const std::string sentence = error.what();
      CHECK(sentence.substr(0, 2) == "f:");
      CHECK(sentence.find_first_not_of("0123456789", 2) == sentence.find(':', 2));
      CHECK(sentence.find(": ") > 2);
      ++refusals;
    }
  };
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char byte : bytes) {
      auto text = whole;
      text[at] = byte;
      check(text);
      check(whole.substr(0, at) + byte + whole.substr(at));
    }
    check(whole.substr(0, at) + whole.substr(at + 1));
  }
  CHECK(entries > 500);
  CHECK(refusals > 3000);
}

TEST_CASE("a_file_that_cannot_be_read_is_named_with_the_reason_and_the_nearest") {
  const ConfigFile file("{}", "kaggle.json");
  const auto folder = file.path().substr(0, file.path().rfind('/'));
  const auto missing = refusal({"--holdfast.config", folder + "/kagle.json"});
  CHECK(missing == "--holdfast.config: '" + folder + "/kagle.json' cannot be read: No such file or directory; the " +
                       "nearest file is '" + file.path() + "'");
  CHECK(contains(refusal({}, {}, {"HOLDFAST_CONFIG=" + folder}), "HOLDFAST_CONFIG: '" + folder +
                                                                     "' cannot be read: Is a "
                                                                     "directory"));
  CHECK(contains(refusal({}, {.config = "nowhere/at all.json"}),
                 "SessionOptions, config: 'nowhere/at all.json' cannot be read: No such file or directory; a relative "
                 "path counts from " +
                     boost::filesystem::current_path().string()));
  CHECK(contains(refusal({"--holdfast.config", "/dev/zero"}), "--holdfast.config: '/dev/zero' is larger than 1 MiB"));
  CHECK(contains(refusal({"--holdfast.config="}), "--holdfast.config: the path is empty"));
  CHECK(contains(refusal({"--holdfast.config"}), "--holdfast.config needs a value: --holdfast.config PATH"));
  // Errors outside the file are reported as without a file.
  CHECK(
      contains(refusal({"--holdfast.config", file.path(), "--holdfast.evry", "5"}), "the nearest is --holdfast.every"));
  CHECK(contains(refusal({"--holdfast.config", file.path(), "--holdfast.keep", "x"}), "--holdfast.keep: 'x' is not"));
}

TEST_CASE("the_configuration_files_that_come_along_say_what_the_session_takes") {
  int files = 0;
  for (const auto& entry : boost::filesystem::directory_iterator(HOLDFAST_CONFIGS)) {
    const auto path = entry.path().string();
    CAPTURE(path);
    ++files;
    const auto options = read({"--holdfast.config", path}).read;
    std::size_t set = 0;
    for (const auto& option : options.in_force) set += option.origin.rfind(path + ":", 0) == 0;
    CHECK(set >= 3);
    CHECK_FALSE(options.values.fresh);
    CHECK_FALSE(options.values.take_over);
    CHECK(options.values.keep >= 2);
  }
  CHECK(files == 3);
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
    holdfast::StopRequest requests;
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
