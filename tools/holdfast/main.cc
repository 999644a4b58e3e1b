// The holdfast command: inspects checkpoints and launches ranks. It does not load LibTorch, so it starts
// at once and runs where LibTorch is not installed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>

#include "holdfast/storage/text/nearest_name.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

const char* const kVersionHelp =
    "A VERSION is one of\n"
    "  RUN              the latest version of a run; RUN is its folder\n"
    "  RUN/42, RUN@42   version 42; RUN/42-7f3a if several versions have this number\n"
    "  FILE             a manifest such as RUN/journal/000042-7f3a9c1e.save.json, or any safetensors file\n\n";

std::string help_footer(const std::string& example, const std::string& json_keys, const std::string& exit_codes) {
  return fmt::format("Example:\n{}\n\nJSON (--json):\n{}\n\nExit codes:\n{}", example, json_keys, exit_codes);
}

namespace {

using storage::meant_name;
using storage::Status;
using storage::StatusCode;

int fail(const Status& status, bool json) {
  const int code = status.code() == StatusCode::invalid ? kUsage : kUnreadable;
  if (json) {
    print_json(
        {{"error", {{"code", storage::to_string(status.code())}, {"message", status.message()}, {"exit", code}}}});
  } else {
    std::fflush(stdout);
    fmt::print(stderr, "holdfast: {}\n", printable(status.message()));
  }
  return code;
}

/// One sentence for a word that is not understood.
std::string sentence_about(const std::string& word, const CLI::App& command) {
  const std::string name = "holdfast " + command.get_name();
  if (word.substr(0, 1) != "-") return name + ": unexpected argument " + in_quotes(word) + "; see " + name + " --help";
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& option_name : option->get_lnames()) known.push_back("--" + option_name);
  }
  const std::string meant = meant_name(word.substr(0, word.find('=')), known);
  return in_quotes(word) + " is not an option of " + name + "; " +
         (meant.empty() ? "see " + name + " --help" : "did you mean " + meant + "?");
}

/// Standard output may be on a full disk; a script must learn that its input is incomplete.
int finish(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  fmt::print(stderr, "holdfast: cannot write to standard output: {}\n", std::strerror(errno));
  return kUnreadable;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Inspects checkpoints: lists, shows, verifies, compares and copies runs and versions, and changes none of them. "
      "Checks machines, and launches programs with several ranks.",
      "holdfast");
  app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(28);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("Positionals", "Arguments");
  app.footer(
      "Each command has its own --help. Example:\n  holdfast ls runs\n\n"
      "Exit codes: 0 success, 1 damage or a difference was found, 2 wrong command line, 3 missing or unreadable. "
      "launch returns those of the ranks.");
  Invocation invocation;
  add_ls(app, invocation);
  add_show(app, invocation);
  add_verify(app, invocation);
  add_diff(app, invocation);
  add_copy(app, invocation);
  add_doctor(app, invocation);
  add_launch(app, invocation);

  std::vector<std::string> verbs;
  for (CLI::App* verb : app.get_subcommands({})) {
    verb->group("Commands");
    verbs.push_back(verb->get_name());
  }
  // The words of a launched program are not parsed here, whatever they look like.
  if (argc > 1 && std::strcmp(argv[1], "launch") == 0) {
    const auto own = take_launched_program(argc, argv, invocation.program);
    if (!own) return fail(own.status(), false);
    argc = *own;
  }
  const bool json = std::any_of(argv, argv + argc, [](const char* word) { return std::strcmp(word, "--json") == 0; });
  if (argc < 2) {
    print(app.help());
    return finish(kUsage);
  }
  const std::string verb = argv[1];
  if (verb.substr(0, 1) != "-" && std::find(verbs.begin(), verbs.end(), verb) == verbs.end()) {
    const std::string nearest = meant_name(verb, verbs);
    return fail(
        {StatusCode::invalid, "unknown command " + in_quotes(verb) + "; " +
                                  (nearest.empty() ? "the commands are " + fmt::format("{}", fmt::join(verbs, ", "))
                                                   : "did you mean " + nearest + "?")},
        json);
  }
  if (verb.substr(0, 1) == "-" && verb != "-h" && verb != "--help" && verb != "--version") {
    return fail({StatusCode::invalid, in_quotes(verb) + " is not an option of holdfast; begin with a command: " +
                                          fmt::format("{}", fmt::join(verbs, ", "))},
                json);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    app.exit(success);
    return finish(kOk);
  } catch (const CLI::ExtrasError&) {
    return fail({StatusCode::invalid, sentence_about(app.remaining(true).front(), *app.get_subcommands().front())},
                json);
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string option = std::string(error.what()).substr(0, std::string(error.what()).find(':'));
    return fail({StatusCode::invalid, option + " needs a value; see holdfast " + verb + " --help"}, json);
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    while (!message.empty() && (message.back() == '\n' || message.back() == '.')) message.pop_back();
    const auto chosen = app.get_subcommands();
    const std::string help = "holdfast " + (chosen.empty() ? "" : chosen.front()->get_name() + " ") + "--help";
    return fail({StatusCode::invalid, message + "; see " + help}, json);
  }
  const auto code = invocation.run();
  return finish(code ? *code : fail(code.status(), invocation.json));
}

}  // namespace
}  // namespace holdfast::tools

int main(int argc, char** argv) {
  // When the reader closes the pipe (| head), this process ends quietly, even where its parent ignores the signal.
  std::signal(SIGPIPE, SIG_DFL);
  try {
    return holdfast::tools::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("holdfast: there is not enough memory for this\n", stderr);
  } catch (const std::exception& error) {
    fmt::print(stderr, "holdfast: {}\n", error.what());
  }
  return holdfast::tools::kUnreadable;
}
