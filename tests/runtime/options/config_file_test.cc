// The configuration file: its place among the layers of options, and errors with their line.
#include "options/config_file.h"

#include <boost/filesystem/operations.hpp>
#include <string>
#include <vector>

#include "catch.h"
#include "message_parts.h"
#include "options/command_line.h"
#include "source_folder.h"

using namespace command_line;
using namespace std::string_literals;

namespace {

// Without the path if the sentence begins with it: ":4: …".
std::string refused(const std::string& text) {
  const ConfigFile file(text);
  const auto sentence = refusal(file.argument());
  return sentence.rfind(file.path(), 0) == 0 ? sentence.substr(file.path().size()) : sentence;
}

}  // namespace

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
  CHECK(contains(holdfast::detail::help_text(options), "now 2h (" + file.path() + ":2), default 10min"));
}

TEST_CASE("the_configuration_file_of_the_strongest_layer_is_used") {
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

TEST_CASE("an_unknown_key_is_refused_with_file_line_and_the_nearest_option") {
  CHECK(lacking(refused("{\n  \"keep\": 2,\n  // often\n  \"evry\": 5\n}"), {":4: \"evry\"", "\"every\""}) == "");
  CHECK(lacking(refused("{\"take_over\": true}"), {":1: \"take_over\"", "\"take-over\""}) == "");
  for (const char* elsewhere : {"HOLDFAST_TAKE_OVER", "--holdfast.take-over", "Take-Over"}) {
    CHECK(contains(refused("{\"" + std::string(elsewhere) + "\": true}"), "the nearest is \"take-over\""));
  }
  CHECK(contains(refused("{\"epochs\": 3}"), "the program's own options stay on its command line"));
  CHECK(lacking(refused("{\n\"config\": \"other.json\"}"), {":2: \"config\"", "configuration file"}) == "");
  CHECK(contains(refused("{\"keep\": 2,\n\"seed\": 1,\n\"keep\": 3}"), ":3: \"keep\" is already in line 1"));
}

TEST_CASE("a_value_of_the_wrong_type_is_refused_with_file_line_and_the_right_type") {
  const auto wants = [](const std::string& line, std::initializer_list<std::string> parts) {
    const std::string text = refused("{\n" + line + "\n}");
    return text.starts_with(":2: ") ? lacking(text, parts) : "no line in: " + text;
  };
  CHECK(wants("\"keep\": \"5\"", {"\"keep\"", "whole number", "quotes", "\"5\""}) == "");
  CHECK(wants("\"keep\": 2.5", {"\"keep\"", "whole number", "2.5"}) == "");
  CHECK(wants("\"keep\": 1e3", {"\"keep\"", "whole number", "1e3"}) == "");
  CHECK(wants("\"keep\": true", {"\"keep\"", "whole number", "true"}) == "");
  CHECK(wants("\"fresh\": \"yes\"", {"\"fresh\"", "true or false", "quotes", "\"yes\""}) == "");
  CHECK(wants("\"fresh\": 1", {"\"fresh\"", "true or false", "1"}) == "");
  CHECK(wants("\"every\": 1.5", {"\"every\"", "string", "1.5"}) == "");
  CHECK(wants("\"dir\": false", {"\"dir\"", "string", "false"}) == "");
  CHECK(wants("\"run\": null", {"\"run\"", "string", "null", "leave the line out"}) == "");
  CHECK(wants("\"every\": {\"steps\": 5}", {"\"every\"", "string", "object"}) == "");
  CHECK(wants("\"every\": [\"5\"]", {"\"every\"", "string", "list"}) == "");
  CHECK(wants("\"allow-missing\": [\"a\", 5]", {"\"allow-missing\"", "list of strings", "number 5"}) == "");
  CHECK(wants("\"allow-missing\": [[\"a\"]]", {"\"allow-missing\"", "not a list"}) == "");
  CHECK(wants("\"allow-missing\": 5", {"\"allow-missing\"", "number 5"}) == "");
}

TEST_CASE("an_invalid_value_in_a_file_is_refused_with_its_line") {
  CHECK(contains(refused("{\n\"every\": \"soon\"}"), ":2: \"every\": 'soon' is not an interval"));
  CHECK(contains(refused("{\"device\": \"gpu\"}"), ":1: \"device\": 'gpu' is not one of cpu, cuda, auto"));
  CHECK(contains(refused("{\"precision\": 16}"), ":1: \"precision\": '16' is not one of"));
  CHECK(contains(refused("{\"keep\": -1}"), ":1: \"keep\": '-1' is not a whole number from 0 to"));
  CHECK(contains(refused("{\"seed\": 18446744073709551616}"), ":1: \"seed\": '18446744073709551616' is not a whole"));
  CHECK(contains(refused("{\"seed\": -9223372036854775809}"), ":1: \"seed\": '-9223372036854775809' is not a whole"));
  CHECK(contains(refused("{\"allow-missing\": [\"a\", \"\"]}"), ":1: \"allow-missing\": an empty pattern"));
  const ConfigFile file("{\n\"from\": 42\n}");
  CHECK(lacking(refusal({"--holdfast.fresh", "--holdfast.config=" + file.path()}),
                {"--holdfast.from 42 (" + file.path() + ":2)", "--holdfast.fresh (command line)"}) == "");
}

TEST_CASE("a_file_that_is_not_json_is_refused_with_the_line_and_column_of_the_error") {
  CHECK(lacking(refused("{\n  \"keep\": 2\n  \"seed\": 1\n}"), {":3:3:", "comma", "missing", "\"seed\""}) == "");
  CHECK(lacking(refused("{\n  \"allow-missing\": [\"ä\" \"b\"]\n}"), {":2:25:", "comma", "missing", "\"b\""}) == "");
  CHECK(lacking(refused("{\n  \"keep\": 2,\n}"), {":3:1:", "last comma", "}"}) == "");
  CHECK(lacking(refused("{\"allow-missing\": [\"a\",]}"), {":1:24:", "last comma", "]"}) == "");
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
  CHECK(lacking(refused("{\n  \"every\": \"10min,\n  \"keep\": 2\n}"), {":2:19:", "string", "'\"' is missing"}) == "");
  CHECK(lacking(refused("{\"every\": \"10min"), {":1:17:", "string", "'\"' is missing"}) == "");
  CHECK(lacking(refused("{\n  \"keep\": 2\n"), {":3:1:", "'}' is missing"}) == "");
  CHECK(lacking(refused("{\"allow-missing\": [\"a\""), {":1:23:", "']' is missing"}) == "");
  CHECK(contains(refused("{ /* often \n}"), "invalid comment; missing closing '*/'"));
  CHECK(contains(refused("{\"run\": \"\xff\"}"), ":1:10: a string is not UTF-8"));
  CHECK(contains(refused("{\n\0}"s), ":2:1: a NUL byte"));
  for (const char* empty : {"", "  \n", "// nothing yet\n"}) {
    CHECK(lacking(refused(empty), {"empty", "JSON object"}) == "");
  }
  CHECK(lacking(refused("\n[\"every\", 5]"), {":2:", "JSON object", "not a list"}) == "");
  CHECK(contains(refused("\"every\""), "not the string \"every\""));
}

TEST_CASE("only_members_of_the_top_level_object_are_entries") {
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

TEST_CASE("a_truncated_file_is_refused_wherever_it_ends") {
  const std::string whole =
      "{ // c\n\"keep\": 25, \"fresh\": true, \"every\": \"5s\", \"allow-missing\": [\"a\", \"\\u00e4\"]}";
  CHECK(holdfast::parse_config(whole, "f").size() == 4);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(whole.substr(0, size));
    CHECK_THROWS_AS(holdfast::parse_config(whole.substr(0, size), "f"), Error);
  }
}

TEST_CASE("any_file_is_parsed_or_refused_with_its_line") {
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
  CHECK(lacking(missing, {"--holdfast.config", "'" + folder + "/kagle.json'", "No such file or directory",
                          "'" + file.path() + "'"}) == "");
  CHECK(lacking(refusal({}, {}, {"HOLDFAST_CONFIG=" + folder}),
                {"HOLDFAST_CONFIG", "'" + folder + "'", "Is a directory"}) == "");
  CHECK(lacking(refusal({}, {.config = "nowhere/at all.json"}),
                {"SessionOptions", "config", "'nowhere/at all.json'", "No such file or directory",
                 boost::filesystem::current_path().string()}) == "");
  CHECK(contains(refusal({"--holdfast.config", "/dev/zero"}), "--holdfast.config: '/dev/zero' is larger than 1 MiB"));
  CHECK(contains(refusal({"--holdfast.config="}), "--holdfast.config: the path is empty"));
  CHECK(contains(refusal({"--holdfast.config"}), "--holdfast.config needs a value: --holdfast.config PATH"));
  // Errors outside the file are reported as without a file.
  CHECK(
      contains(refusal({"--holdfast.config", file.path(), "--holdfast.evry", "5"}), "the nearest is --holdfast.every"));
  CHECK(contains(refusal({"--holdfast.config", file.path(), "--holdfast.keep", "x"}), "--holdfast.keep: 'x' is not"));
}

TEST_CASE("the_shipped_configuration_files_are_valid") {
  int files = 0;
  for (const auto& entry : boost::filesystem::directory_iterator(source_folder() + "/configs")) {
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
