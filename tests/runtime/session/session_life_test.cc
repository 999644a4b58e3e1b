// Sessions one after another in a process, sessions that are moved, and sessions without main's arguments.
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <fstream>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "ranks.h"
#include "ranks/rank_session.h"
#include "session_run.h"

namespace {

using namespace holdfast;
using rank_session::start;
using rank_session::train_line;

/// argv as main receives it.
struct CommandLine {
  explicit CommandLine(std::vector<std::string> words) : words_(std::move(words)) {
    words_.insert(words_.begin(), "program");
    for (std::string& word : words_) pointers_.push_back(word.data());
    pointers_.push_back(nullptr);
    argc = static_cast<int>(words_.size());
    argv = pointers_.data();
  }
  int argc;
  char** argv;

 private:
  std::vector<std::string> words_;
  std::vector<char*> pointers_;
};

/// Discards standard error while it lives, because the output of the sessions is not that of the test.
class Quiet {
 public:
  Quiet() : kept_(::dup(STDERR_FILENO)) {
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nowhere, STDERR_FILENO);
    ::close(nowhere);
    earlier_sessions() = {};
  }
  ~Quiet() {
    ::dup2(kept_, STDERR_FILENO);
    ::close(kept_);
    earlier_sessions() = {};
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  int kept_;
};

double draw() { return torch::rand({1}).item<double>(); }

}  // namespace

TEST_CASE("a_second_session_of_a_process_keeps_the_command_lines_options_and_the_generators") {
  const Run run;
  const Quiet quiet;
  CommandLine line({"--holdfast.dir", run.folder.path().string(), "--epochs", "3", "--holdfast.every=1",
                    "--holdfast.device", "cpu", "--holdfast.keep", "0"});
  double first_draw = 0;
  for (const char* name : {"a", "b"}) {
    auto session = Session::start(line.argc, line.argv, {.run = name});
    CHECK(line.argc == 3);
    CHECK(std::string(line.argv[2]) == "3");
    if (first_draw == 0) {
      first_draw = draw();
    } else {
      CHECK(draw() != first_draw);
    }
    double x = 0;
    session.track("x", x);
    for ([[maybe_unused]] auto& step : session.steps({.count = 3})) x += 1;
    CHECK(session.finish() == kDone);
    CHECK(boost::filesystem::exists(run.folder / name));
  }
  {
    auto third = Session::start({.run = "c"});  // without argv, but those of the process are known
    double x = 0;
    third.track("x", x);
    for ([[maybe_unused]] auto& step : third.steps({.count = 1})) x += 1;
    CHECK(third.finish() == kDone);
    CHECK(boost::filesystem::exists(run.folder / "c"));
  }
  {
    auto fourth = Session::start(line.argc, line.argv, {.run = "d", .seed = 5});
    const double seeded = draw();
    torch::manual_seed(5);
    CHECK(draw() == seeded);
  }
  // Another command line, such as one made up by a library, starts a new run.
  CommandLine other({"--holdfast.dir", (run.folder / "other").string()});
  auto session = Session::start(other.argc, other.argv, {.run = "e", .device = "cpu"});
  session.restore();
  CHECK(boost::filesystem::exists(run.folder / "other" / "e"));
}

TEST_CASE("a_later_session_seeds_the_generators_of_all_ranks_alike", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    std::vector<double> draws;
    for (const char* name : {"a", "b"}) {
      SessionOptions options;
      options.dir = folder.path().string();
      options.run = name;
      options.device = "cpu";
      auto session = Session::start(options);
      draws.push_back(draw());
      if (session.min(draws.back()) != session.max(draws.back())) return 5;
      double x = 0;
      session.track("x", x);
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += draw();
      if (session.min(x) == session.max(x)) return 6;  // dropout differs
      if (const int code = session.finish(); code != kDone) return code;
    }
    return draws[0] != draws[1] ? 0 : 7;
  });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_process_may_have_several_sessions_but_one_at_a_time", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(3, [&]() -> int {
    for (const char* run : {"first", "second", "third"}) {
      if (const int code = train_line(folder.path(), run, "cpu"); code != 0) return code;
    }
    auto session = start(folder.path(), "fourth");
    try {
      auto another = start(folder.path(), "fifth");
    } catch (const Error& error) {
      std::printf("%s: %s\n", std::string(storage::to_string(error.code())).c_str(), error.what());
    }
    return session.finish();
  });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    CHECK(has_line(rank.text, {"invalid", "Session::start", "another session"}));
  }
}

namespace {

class Trainer {
 public:
  explicit Trainer(Session session) : session_(std::move(session)) { session_.track("x", x_); }
  int train(std::uint64_t stops_at) {
    for (auto& step : session_.steps({.count = 5})) {
      x_ += 1;
      if (step.number() == stops_at) session_.stop("enough");
    }
    return session_.finish();
  }
  double x() const { return x_; }

 private:
  double x_ = 0;
  Session session_;
};

Session passed_on(Session session) {
  session.track("y", *std::make_unique<int>(3));
  session.untrack("y");
  return session;
}

}  // namespace

TEST_CASE("a_session_can_be_moved_into_a_member_and_out_of_a_function") {
  const Run run;
  const auto life = [&](std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      Trainer trainer(passed_on(std::move(session)));
      const int code = trainer.train(stops_at);
      CHECK(trainer.x() == (stops_at == 0 ? 5 : 2));
      try {
        (void)session.step();
        FAIL("a session that was moved from was used");
      } catch (const Error& error) {
        CHECK(error.code() == storage::StatusCode::invalid);
        CHECK(has_line(error.what(), {"Session", "moved"}));
      }
      return code;
    });
  };
  CHECK(life(2) == kRunAgain);
  CHECK(life(0) == kDone);
}

TEST_CASE("a_session_without_mains_arguments_reads_environment_and_configuration_file") {
  const Run run;
  const Quiet quiet;
  const std::string config = (run.folder / "config.json").string();
  std::ofstream(config) << R"({"every": "1", "keep": 2})";
  ::setenv("HOLDFAST_DIR", run.folder.path().c_str(), 1);
  ::setenv("HOLDFAST_CONFIG", config.c_str(), 1);
  {
    auto session = Session::start({.run = "x", .device = "cpu"});
    double x = 0;
    session.track("x", x);
    for ([[maybe_unused]] auto& step : session.steps({.count = 4})) x += 1;
    CHECK(session.finish() == kDone);
  }
  ::unsetenv("HOLDFAST_DIR");
  ::unsetenv("HOLDFAST_CONFIG");
  const auto store = storage::open_file_store(run.folder / "x", {.read_only = true});
  storage::History history;
  REQUIRE(history.refresh(*store).ok());
  CHECK(history.versions().size() == 2);
}
