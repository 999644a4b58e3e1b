// holdfast launch: starts the ranks of a program on this host and supervises them.
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/filesystem.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "holdfast/storage/text/nearest_name.h"
#include "holdfast/storage/text/units.h"
#include "launch/launcher.h"
#include "terminal/phrases.h"
#include "verb.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

/// Each takes a value; this is how launch's own words are distinguished from the program's.
const std::vector<std::string> kOptions = {"--nproc", "--nnodes",       "--node-rank", "--rendezvous",
                                           "--logs",  "--max-restarts", "--backoff",   "--grace"};

struct LaunchOptions {
  std::string nproc = "auto";
  int nodes = 1;
  std::optional<int> node;
  std::string rendezvous;
  std::string logs;
  int max_restarts = 0;
  std::string backoff = "1s";
  std::string grace = "30s";
};

Status wrong(std::string sentence) { return {StatusCode::invalid, std::move(sentence)}; }

Result<std::chrono::milliseconds> duration(const std::string& option, const std::string& text) {
  const auto parsed = storage::parse_duration(text);
  if (!parsed) return wrong(option + " must be a time such as 500ms, 30s, 2min or 1h, not " + in_quotes(text));
  return std::chrono::ceil<std::chrono::milliseconds>(*parsed);
}

Result<Launcher::Plan> plan_of(const LaunchOptions& options, const std::vector<std::string>& program) {
  if (program.empty()) return wrong("there is no program to start; for example: holdfast launch --nproc 2 ./train");
  Launcher::Plan plan;
  plan.program = program;
  World& world = plan.world;
  if (options.nproc == "auto") {
    world.ranks_here = ranks_for_devices();
  } else {
    const bool number = options.nproc.find_first_not_of("0123456789") == std::string::npos && options.nproc.size() < 5;
    world.ranks_here = number ? std::atoi(options.nproc.c_str()) : 0;
    if (world.ranks_here < 1)
      return wrong("--nproc must be auto or a number from 1 to 9999, not " + in_quotes(options.nproc));
  }
  if (options.nodes < 1) return wrong("--nnodes must be at least 1");
  world.nodes = options.nodes;
  if (world.nodes > 1 && !options.node) {
    return wrong(
        fmt::format("--nnodes {} needs --node-rank, the number of this host: 0 to {}", world.nodes, world.nodes - 1));
  }
  world.node = options.node.value_or(0);
  if (world.node < 0 || world.node >= world.nodes) {
    return wrong(fmt::format("--node-rank {} must be below --nnodes {}: nodes count from 0", world.node, world.nodes));
  }
  if (world.nodes > 1 && options.rendezvous.empty()) {
    return wrong("--nnodes " + std::to_string(world.nodes) +
                 " needs --rendezvous HOST:PORT, the address of node 0 with a free port, the same on every node");
  }
  if (!options.rendezvous.empty()) {
    const auto place = parse_rendezvous(options.rendezvous);
    if (!place)
      return wrong("--rendezvous must be HOST:PORT, such as node0:29500, not " + in_quotes(options.rendezvous));
    world.address = place->address;
    world.port = place->port;
    plan.own_port = false;
  }
  if (options.max_restarts < 0) return wrong("--max-restarts must be at least 0");
  const auto backoff = duration("--backoff", options.backoff);
  if (!backoff) return backoff.status();
  const auto grace = duration("--grace", options.grace);
  if (!grace) return grace.status();
  plan.restarts = {options.max_restarts, *backoff, world.node == 0};
  plan.grace = *grace;
  plan.logs = options.logs;
  return plan;
}

class LaunchHelp : public CLI::Formatter {
  std::string make_usage(const CLI::App*, std::string) const override {
    return "Usage: holdfast launch [OPTIONS] [--] PROGRAM [ARGS...]\n\n";
  }
};

/// The temporary folder of one launch.
class PrivateFolder {
 public:
  PrivateFolder() {
    const char* parent = std::getenv("TMPDIR");
    path_ = std::string(parent && *parent ? parent : "/tmp") + "/holdfast-launch-XXXXXX";
    if (!::mkdtemp(path_.data())) path_.clear();
  }
  ~PrivateFolder() {
    boost::system::error_code ignored;
    if (!path_.empty()) boost::filesystem::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<int> run_launch(const LaunchOptions& options, const std::vector<std::string>& program) {
  const auto plan = plan_of(options, program);
  if (!plan) return plan.status();
  if (!plan->logs.empty()) {
    boost::system::error_code error;
    boost::filesystem::create_directories(plan->logs, error);
    if (error)
      return Status(StatusCode::unreadable, "cannot make the folder " + in_quotes(plan->logs) + ": " + error.message());
  }
  // A closed standard descriptor would be reused for a pipe or a log, and written to by mistake.
  for (int standard = 0; standard < 3; ++standard) {
    if (::fcntl(standard, F_GETFD) < 0) ::open("/dev/null", O_RDWR);
  }
  const PrivateFolder folder;
  if (folder.path().empty()) {
    return Status(StatusCode::unreadable, std::string("cannot make a temporary folder: ") + std::strerror(errno));
  }
  return Launcher(*plan, folder.path()).run();
}

}  // namespace

// By hand, because CLI11's prefix_command() passes misspelled options of launch on to the program.
Result<int> take_launched_program(int argc, char** argv, std::vector<std::string>& program) {
  int at = 2;
  bool marked = false;
  for (; at < argc; ++at) {
    const std::string word = argv[at];
    if (word == "--") {
      marked = true;
      break;
    }
    if (word.empty() || word.front() != '-') break;
    if (word == "-h" || word == "--help") continue;
    const std::string name = word.substr(0, word.find('='));
    if (std::find(kOptions.begin(), kOptions.end(), name) == kOptions.end()) {
      const std::string meant = storage::meant_name(name, kOptions);
      if (name.starts_with("--holdfast."))
        return wrong(name + " is an option of the program: put it after the program");
      return wrong(in_quotes(name) + " is not an option of launch; " +
                   (meant.empty() ? "see holdfast launch --help" : "did you mean " + meant + "?"));
    }
    if (word == name && ++at == argc) return wrong(name + " needs a value; see holdfast launch --help");
  }
  at = std::min(at, argc);
  program.assign(argv + at + (marked ? 1 : 0), argv + argc);
  if (!marked && !program.empty()) {
    for (std::size_t i = 1; i < program.size() && program[i] != "--"; ++i) {
      const std::string name = program[i].substr(0, program[i].find('='));
      if (std::find(kOptions.begin(), kOptions.end(), name) == kOptions.end()) continue;
      return wrong(
          fmt::format("{} comes after the program, so {} would receive it. Put it before the program, or write -- "
                      "before {} if it is "
                      "an option of the program",
                      name, printable(program[0]), printable(program[0])));
    }
  }
  return at;
}

void add_launch(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<LaunchOptions>();
  CLI::App* verb = app.add_subcommand(
      "launch",
      "Start the ranks of a program on this host and supervise them. If one rank fails, all end. Signals reach every "
      "rank. No process is left behind.");
  const auto formatter = std::make_shared<LaunchHelp>();
  formatter->column_width(28);
  verb->formatter(formatter);
  verb->add_option(
          "--nproc", options->nproc,
          "ranks on this host; auto: one for each visible NVIDIA GPU (CUDA_VISIBLE_DEVICES), else 1 (default: auto)")
      ->type_name("N|auto");
  verb->add_option("--nnodes", options->nodes,
                   "number of hosts; each runs its own launch with the same number of ranks (default: 1)")
      ->type_name("N");
  verb->add_option("--node-rank", options->node, "number of this host, counted from 0")->type_name("R");
  verb->add_option(
          "--rendezvous", options->rendezvous,
          "address on which rank 0 listens, the same on all hosts; required with several hosts (default: a free "
          "port of 127.0.0.1)")
      ->type_name("HOST:PORT");
  verb->add_option("--logs", options->logs,
                   "append the output of each rank to DIR/rank-N.log; the terminal then shows only launch's own lines")
      ->type_name("DIR");
  verb->add_option("--max-restarts", options->max_restarts,
                   "restart all ranks after a failure, at most K times (default: 0)")
      ->type_name("K");
  verb->add_option("--backoff", options->backoff,
                   "pause before the first restart; it doubles with each restart, up to 60s (default: 1s)")
      ->type_name("TIME");
  verb->add_option("--grace", options->grace,
                   "time between SIGTERM and SIGKILL for processes that do not end (default: 30s)")
      ->type_name("TIME");
  verb->footer(
      "Example:\n"
      "  holdfast launch --nproc 4 --max-restarts 3 ./train --epochs 10\n"
      "  holdfast launch --nnodes 2 --node-rank 0 --rendezvous node0:29500 ./train   # on the other host: "
      "--node-rank 1\n\n"
      "Environment of each rank:\n"
      "  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, HOLDFAST_LAUNCH=1,\n"
      "  HOLDFAST_RESTART         0 for the first start of this launch, 1 for its first restart, ...\n"
      "  HOLDFAST_PROGRESS        file in which rank 0 writes the step of its last saved version\n"
      "  HOLDFAST_LISTEN_FD       rank 0 on one host: a socket that already listens on MASTER_PORT\n"
      "  OMP_NUM_THREADS          cores / nproc with several ranks, unless you set it\n\n"
      "If a rank fails (an exit code other than 0 and 75, or a signal), the others have 5 s to end by themselves.\n"
      "Then they receive SIGTERM, and SIGKILL after --grace. Signals to launch are passed on to every rank. After\n"
      "SIGTERM, SIGINT, SIGQUIT or SIGHUP nothing is restarted. After a second SIGINT, ranks that do not end within\n"
      "5 s receive SIGTERM and SIGKILL in the same way. With several hosts, each launch restarts its own ranks, and\n"
      "the ranks meet again at the rendezvous.\n\n"
      "Exit codes:\n"
      "  0    every rank ended with 0\n"
      "  75   stopped early after a save: run the same command again (a rank returned 75, or launch was stopped\n"
      "       in the pause before a restart); never restarted by launch\n"
      "  N    the exit code of the first rank that failed; 128+N if signal N ended it; 64 (wrong option) and 69 (the "
      "run\n"
      "       was taken over) are never restarted\n"
      "  70   gave up: three failures in a row without a newer saved step\n"
      "  126  the program cannot be executed\n"
      "  127  there is no such program\n"
      "  2    wrong command line of launch\n"
      "  3    launch itself failed: no process, port, log or temporary folder");
  verb->callback([options, &invocation] {
    invocation.run = [options, program = invocation.program] { return run_launch(*options, program); };
  });
}

}  // namespace holdfast::tools
