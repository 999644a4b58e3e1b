// Options of the command line, the environment and the code: which one wins, and which are refused.
#include "holdfast/runtime/options/options.h"

#include <string>
#include <vector>

#include "catch.h"
#include "message_parts.h"
#include "options/command_line.h"

using namespace command_line;

TEST_CASE("a_command_line_can_be_read_twice") {
  std::string program = "/usr/bin/train", mine = "--epochs", ours = "--holdfast.run=a";
  char* argv[] = {program.data(), mine.data(), ours.data(), nullptr};
  char nothing[] = "";
  char* environment[] = {nothing, nullptr};
  for (int i = 0; i < 2; ++i) {
    int argc = 3;  // as main() received it, because the program kept its own count
    (void)holdfast::detail::read_options(argc, argv, {}, environment);
    CHECK(argc == 2);
    CHECK(argv[argc] == nullptr);
  }
}

TEST_CASE("the_session_removes_its_options_from_argv_and_keeps_the_others_in_order") {
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

TEST_CASE("platforms_default_applies_unless_the_program_or_its_user_chose_a_folder") {
  holdfast::Surroundings kaggle;
  kaggle.environment["KAGGLE_KERNEL_RUN_TYPE"] = "Batch";
  const auto options = read({}, {}, {}, kaggle).read;
  CHECK(options.values.dir == "/kaggle/working/holdfast");
  CHECK(in_force(options, "dir").origin == "platform kaggle-batch");
  CHECK(options.platform.place.reason == "KAGGLE_KERNEL_RUN_TYPE=Batch");
  CHECK(options.profile.name == "kaggle-batch");
  CHECK(read({}, {.dir = "mine"}, {}, kaggle).read.values.dir == "mine");
  CHECK(read({}, {}, {"HOLDFAST_DIR=/data"}, kaggle).read.values.dir == "/data");
  CHECK(read({"--holdfast.dir", "runs"}, {}, {}, kaggle).read.values.dir == "runs");

  const auto chosen = read({"--holdfast.platform", "colab"}, {}, {}, kaggle).read;
  CHECK(chosen.values.dir == "/content/holdfast");
  CHECK(chosen.platform.place.reason == "option platform (command line)");
  CHECK(read({}).read.values.dir == "runs");
  CHECK(read({}).read.profile.name == "local");
  CHECK(lacking(refusal({"--holdfast.platform", "kagle"}), {"--holdfast.platform", "'kagle'", "nearest is kaggle"}) ==
        "");
}

TEST_CASE("an_unknown_option_is_refused_with_the_nearest_name") {
  CHECK(lacking(refusal({"--holdfast.evry", "5"}), {"--holdfast.evry", "--holdfast.every"}) == "");
  CHECK(contains(refusal({"--holdfast.takeover"}), "--holdfast.take-over"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_EVRY=5"}), "HOLDFAST_EVRY in the environment"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_EVRY=5"}), "HOLDFAST_EVERY"));
}

TEST_CASE("an_invalid_value_is_refused_with_its_option_and_origin") {
  CHECK(lacking(refusal({"--holdfast.seed", "abc"}), {"--holdfast.seed", "'abc'", "whole number"}) == "");
  CHECK(contains(refusal({"--holdfast.seed=-1"}), "--holdfast.seed: '-1'"));
  CHECK(contains(refusal({"--holdfast.keep=3x"}), "--holdfast.keep: '3x'"));
  CHECK(contains(refusal({"--holdfast.threads=-2"}), "--holdfast.threads: '-2'"));
  CHECK(contains(refusal({"--holdfast.device", "gpu"}), "the nearest is cpu"));
  CHECK(lacking(refusal({"--holdfast.precision", "fp8"}),
                {"--holdfast.precision", "'fp8'", "auto, fp32, bf16, fp16"}) == "");
  CHECK(lacking(refusal({"--holdfast.every", "soon"}), {"--holdfast.every", "'soon'", "interval"}) == "");
  CHECK(contains(refusal({"--holdfast.run", "a/b"}), "--holdfast.run: 'a/b'"));
  CHECK(contains(refusal({"--holdfast.dir", "--epochs"}), "--holdfast.dir needs a value"));
  CHECK(contains(refusal({"--holdfast.dir"}), "--holdfast.dir needs a value: --holdfast.dir PATH"));
  CHECK(contains(refusal({"--holdfast.fresh=maybe"}), "--holdfast.fresh: 'maybe'"));
  CHECK(contains(refusal({}, {}, {"HOLDFAST_LOAD=some"}), "HOLDFAST_LOAD: 'some'"));
  CHECK(contains(refusal({}, {.every = "often"}), "SessionOptions, every: 'often'"));
  CHECK(contains(refusal({"--holdfast.from="}), "--holdfast.from: the version is empty"));
  CHECK(contains(refusal({"--holdfast.threads=100000"}), "--holdfast.threads: '100000' is not"));
}

TEST_CASE("options_in_code_may_be_values_and_are_checked_like_texts") {
  using holdfast::DeviceKind, holdfast::LoadMode, holdfast::OnNonFinite, holdfast::Precision, holdfast::SaveEvery;
  const SessionOptions code = {.every = SaveEvery{.steps = 500, .epochs = 0, .time = std::chrono::minutes(10)},
                               .device = DeviceKind::cpu,
                               .precision = Precision::bf16,
                               .load = LoadMode::subset,
                               .join_within = std::chrono::minutes(2),
                               .silence = std::chrono::seconds(30),
                               .on_nonfinite = OnNonFinite{OnNonFinite::Act::rollback, 100}};
  const auto options = read({}, code).read;
  CHECK(options.values.every->steps == 500);
  CHECK(in_force(options, "every").value == "500 steps, 10 min");
  CHECK(in_force(options, "every").origin == "code");
  CHECK(*options.values.device == DeviceKind::cpu);
  CHECK(**options.values.precision == Precision::bf16);
  CHECK(*options.values.load == LoadMode::subset);
  CHECK(*options.values.join_within == std::chrono::minutes(2));
  CHECK(*options.values.say_waiting == std::chrono::seconds(30));  // a default that is written as text
  CHECK(in_force(options, "on-nonfinite").value == "rollback:100");
  CHECK(read({"--holdfast.every", "7"}, code).read.values.every->steps == 7);

  CHECK(contains(refusal({}, {.silence = std::chrono::milliseconds(500)}), "SessionOptions, silence: "));
  CHECK(contains(refusal({}, {.join_within = std::chrono::seconds(-5)}), "SessionOptions, join-within: "));
  CHECK(contains(refusal({}, {.every = SaveEvery{.time = std::chrono::seconds(-1)}}), "SessionOptions, every: "));
  CHECK(contains(refusal({}, {.on_nonfinite = OnNonFinite{OnNonFinite::Act::rollback, 0}}),
                 "SessionOptions, on-nonfinite: "));
}

TEST_CASE("an_unexpanded_tilde_and_an_invalid_run_name_are_refused_at_the_start") {
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

TEST_CASE("on_nonfinite_is_read_from_every_layer_and_an_invalid_value_is_refused") {
  CHECK(read({}).read.values.on_nonfinite.text() == "note");
  CHECK(read_file(R"({"on-nonfinite": "stop"})").values.on_nonfinite.text() == "stop");
  CHECK(read({"--holdfast.on-nonfinite", "rollback:200"}).read.values.on_nonfinite.text() == "rollback:200");
  CHECK(lacking(refusal({"--holdfast.on-nonfinite", "rollback"}),
                {"--holdfast.on-nonfinite", "'rollback'", "note", "stop", "rollback:K"}) == "");
}

TEST_CASE("a_switch_takes_its_value_after_an_equals_sign_only") {
  CHECK_FALSE(read({"--holdfast.fresh=false"}).read.values.fresh);
  CHECK(lacking(refusal({"--holdfast.fresh", "false"}), {"--holdfast.fresh=false"}) == "");
  CHECK(contains(refusal({"--holdfast.take-over", "true", "data"}), "--holdfast.take-over=true"));
  CHECK(read({"--holdfast.fresh", "data"}).left == std::vector<std::string>{"/usr/bin/train", "data"});
  CHECK(read({"--holdfast.help=true"}).read.help);
}

TEST_CASE("platforms_mirror_applies_unless_a_folder_or_none_was_chosen") {
  holdfast::Surroundings colab;
  colab.environment["COLAB_GPU"] = "1";
  colab.mounts.push_back({"/content/drive", "fuse.drive", "drive", "/"});
  using Folders = std::vector<std::string>;
  const auto mirrors = [&](std::vector<std::string> arguments, holdfast::SessionOptions code = {},
                           std::vector<std::string> environment = {}) {
    return read(arguments, code, environment, colab).read.values.mirror;
  };
  CHECK(mirrors({}) == Folders{"/content/drive/MyDrive/holdfast"});
  CHECK(in_force(read({}, {}, {}, colab).read, "mirror").origin == "platform colab");
  CHECK(mirrors({"--holdfast.mirror", "none"}).empty());
  CHECK(mirrors({}, {}, {"HOLDFAST_MIRROR=none"}).empty());
  CHECK(mirrors({"--holdfast.dir", "runs"}).empty());
  CHECK(mirrors({"--holdfast.dir", "runs", "--holdfast.mirror", "/a", "--holdfast.mirror=/b"}) == Folders{"/a", "/b"});
  CHECK(mirrors({}, {.mirror = {"/mine"}}) == Folders{"/mine"});
  CHECK(contains(refusal({"--holdfast.mirror", "~/copies"}), "~/copies"));
}

TEST_CASE("a_version_to_resume_and_a_fresh_start_are_mutually_exclusive") {
  CHECK(lacking(refusal({"--holdfast.from", "42"}, {}, {"HOLDFAST_FRESH=1"}),
                {"--holdfast.from 42 (command line)", "--holdfast.fresh (environment)"}) == "");
}

TEST_CASE("help_lists_every_option_with_default_value_and_origin") {
  const auto [options, left] = read({"--holdfast.help", "--holdfast.keep", "8"}, {.run = "fashion"});
  CHECK(options.help);
  const auto text = holdfast::detail::help_text(options);
  for (const char* name : {"config",         "dir",         "run",    "seed",          "every",
                           "keep",           "device",      "from",   "fresh",         "deterministic",
                           "take-over",      "threads",     "mirror", "search",        "join-within",
                           "silence",        "say-waiting", "load",   "allow-missing", "allow-unexpected",
                           "allow-mismatch", "help"}) {
    CHECK(contains(text, std::string("--holdfast.") + name + " "));
  }
  CHECK(contains(text, "--holdfast.allow-dataset-change "));
  CHECK(contains(text, "--holdfast.on-nonfinite ACTION "));
  CHECK(contains(text, "now 8 (command line), default 3"));
  CHECK(contains(text, "now fashion (code), default train"));
  CHECK(contains(text, "now 10min (default), default 10min"));
}
