// What a session does at its boundaries, with real signals, real files and a program of one number.
#include "holdfast/runtime/session.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/file_store.h"
#include "holdfast/storage/history.h"
#include "holdfast/storage/metrics.h"
#include "holdfast/storage/version_reader.h"
#include "storage/forwarding_files.h"
#include "storage/scratch_folder.h"
#include "store_files.h"

namespace {

using namespace holdfast;
using storage::StatusCode;

struct Numbers : torch::data::datasets::Dataset<Numbers> {
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({1}, static_cast<float>(index)), torch::zeros({1})};
  }
  std::optional<std::size_t> size() const override { return 10; }
};
using Batches = Loader<decltype(Numbers().map(torch::data::transforms::Stack<>()))>;

Batches batches() { return Batches(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 2}); }  // 5 steps

struct Run {
  ScratchFolder folder;
  std::string every = "never";

  SessionOptions options() const {
    SessionOptions given;
    given.dir = folder.path().string();
    given.run = "run";
    given.every = every;
    given.device = "cpu";
    return given;
  }
  // The session's own lines go to a file, so that a test's output stays short.
  template <class Body>
  auto session(Body&& body, SessionOptions given) const {
    char name[] = "program";
    char* argv[] = {name, nullptr};
    int argc = 1;
    const int kept = ::dup(STDERR_FILENO);
    const int file = ::open((folder / "stderr").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
    struct Restore {
      int fd;
      ~Restore() {
        ::dup2(fd, STDERR_FILENO);
        ::close(fd);
      }
    } restore{kept};
    auto session = Session::start(argc, argv, given);
    return body(session);
  }
  template <class Body>
  auto session(Body&& body) const {
    return session(std::forward<Body>(body), options());
  }

  std::vector<storage::Manifest> versions() const {
    const auto store = storage::open_file_store(folder / "run", {.read_only = true});
    storage::History history;
    REQUIRE(history.refresh(*store).ok());
    std::vector<storage::Manifest> manifests;
    for (const auto& version : history.versions()) {
      manifests.push_back(storage::VersionReader::open(*store, version.uid)->manifest());
    }
    return manifests;
  }
};

// Adds every sample it sees to a sum; `body` runs in each step.
int sum_samples(Session& session, std::uint64_t epochs, double& sum,
                const std::function<void(std::uint64_t step)>& body = {}) {
  auto loader = batches();
  session.track("sum", sum);
  for (auto& batch : session.steps(loader, {.epochs = epochs})) {
    sum += batch.data.sum().item<double>();
    if (body) body(batch.number());
  }
  return session.finish();
}

}  // namespace

TEST_CASE("a_signal_to_stop_saves_at_the_next_boundary_and_the_same_command_goes_on") {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const Run run;
    double sum = 0;
    std::vector<std::uint64_t> steps;
    const auto remember = [&](std::uint64_t step) {
      steps.push_back(step);
      if (step == 3 && steps.size() == 3) ::raise(signal);
    };
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kRunAgain);
    REQUIRE(run.versions().size() == 1);
    CHECK(run.versions()[0].position.step == 3);
    sum = -1000;  // what comes back is the saved one
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kDone);
    CHECK(steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    CHECK(sum == 2 * 45);
  }
}

TEST_CASE("a_signal_during_start_up_stops_before_the_first_step") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    ::raise(SIGTERM);
    return sum_samples(s, 2, sum);
  }) == kRunAgain);
  CHECK(sum == 0);
  CHECK(run.versions().empty());
}

TEST_CASE("sigusr1_saves_and_goes_on") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [](std::uint64_t step) {
      if (step == 2) ::raise(SIGUSR1);
    });
  }) == kDone);
  REQUIRE(run.versions().size() == 2);
  CHECK(run.versions()[0].position.step == 2);
  CHECK(run.versions()[0].reason == "SIGUSR1");
  CHECK(run.versions()[1].reason == "end");
}

TEST_CASE("a_run_that_is_complete_is_left_as_it_is") {
  const Run run;
  double sum = 0;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  const auto before = run.versions();
  sum = -1;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  CHECK(sum == 45);
  CHECK(run.versions().size() == before.size());
  CHECK(run.session([&](Session& s) { return sum_samples(s, 3, sum); }) == kDone);  // more epochs: it goes on
  CHECK(sum == 3 * 45);
}

TEST_CASE("an_epochs_body_belongs_to_the_version_saved_at_its_end") {
  Run run;
  run.every = "1epoch";
  double sum = 0;
  int bodies = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("sum", sum).track("bodies", bodies);
    for (auto& epoch : session.epochs(loader, 3)) {
      for (auto& batch : epoch) {
        sum += batch.data.sum().item<double>();
        if (batch.number() == stop_at) ::raise(SIGTERM);
      }
      if (session.stopping()) break;
      ++bodies;
    }
    return session.finish();
  };
  SECTION("saved after the body") {
    run.session([&](Session& s) { return program(s, 7); });
    const auto versions = run.versions();
    REQUIRE(versions.size() == 2);
    CHECK(versions[0].values.at("bodies") == 1);
    CHECK(versions[0].position.step == 5);
    CHECK(versions[1].position.step == 7);
  }
  SECTION("asked to stop at its last step, the body is done by the next session, once") {
    CHECK(run.session([&](Session& s) { return program(s, 5); }) == kRunAgain);
    CHECK(bodies == 0);
  }
  const int before = bodies;
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  CHECK(bodies == 3);
  CHECK(before < 3);
  CHECK(sum == 3 * 45);
}

TEST_CASE("loops_in_a_row_and_counted_loops_go_on_where_they_were") {
  const Run run;
  std::mt19937 engine(5);
  std::uint64_t warm_up = 0, drawn = 0, hash = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    auto other = batches();
    session.track("engine", engine).track("warm_up", warm_up).track("drawn", drawn).track("hash", hash);
    session.track("other", other);
    for (auto& batch : session.steps(loader, {.epochs = 1})) {
      warm_up += 1;
      if (batch.number() == stop_at) ::raise(SIGTERM);
    }
    for (auto& step : session.steps({.count = 20})) {
      const auto sample = static_cast<std::uint64_t>(other.draw().data.sum().item<double>());
      hash = hash * 31 + engine() + sample;
      ++drawn;
      if (step.number() == stop_at) ::raise(SIGTERM);
    }
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  const auto expected = hash;
  for (const std::uint64_t stop_at : {3, 5, 6, 12, 25}) {
    const Run again;
    engine.seed(5);
    warm_up = drawn = hash = 0;
    CHECK(again.session([&](Session& s) { return program(s, stop_at); }) == (stop_at == 25 ? kDone : kRunAgain));
    engine.seed(99);
    CHECK(again.session([&](Session& s) { return program(s, 0); }) == kDone);
    CHECK(hash == expected);
    CHECK(warm_up == 5);
    CHECK(drawn == 20);
  }
}

TEST_CASE("save_now_waits_for_the_boundary_and_keeps_its_metrics") {
  const Run run;
  double sum = 0;
  run.session([&](Session& session) {
    return sum_samples(session, 1, sum, [&](std::uint64_t step) {
      if (step == 2) session.save_now({{"accuracy", 0.5}});
      if (step == 2) CHECK(run.versions().empty());
    });
  });
  const auto versions = run.versions();
  REQUIRE(versions.size() == 2);
  CHECK(versions[0].position.step == 2);
  CHECK(versions[0].reason == "save_now");
  CHECK(versions[0].metrics == nlohmann::json{{"accuracy", 0.5}});
  CHECK(versions[1].metrics.empty());
}

TEST_CASE("a_checkpoint_that_does_not_fit_is_refused_before_anything_changes") {
  const Run run;
  double sum = 0;
  run.session([&](Session& s) { return sum_samples(s, 1, sum); });
  double other = 7;
  std::string said;
  run.session([&](Session& session) {
    session.track("other", other);
    try {
      session.restore();
    } catch (const Error& error) {
      CHECK(error.code() == StatusCode::misfit);
      said = error.what();
    }
  });
  CHECK(said.find("sum") != std::string::npos);
  CHECK(said.find("other") != std::string::npos);
  CHECK(other == 7);
  sum = 0;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum); }) == kDone);  // nobody took the run over
  CHECK(sum == 90);
  auto loose = run.options();
  loose.allow_missing = {"other"};
  loose.allow_unexpected = {"sum"};
  run.session(
      [&](Session& session) {
        session.track("other", other);
        CHECK(session.restore());
      },
      loose);
  CHECK(other == 7);
}

TEST_CASE("metrics_have_each_step_once_whatever_was_repeated") {
  const Run run;
  double sum = 0;
  for (const std::uint64_t stop_at : {std::uint64_t{4}, std::uint64_t{0}}) {
    run.session([&](Session& session) {
      return sum_samples(session, 2, sum, [&](std::uint64_t step) {
        session.log({{"sum", sum}});
        if (step == stop_at) ::raise(SIGTERM);
      });
    });
  }
  const auto store = storage::open_file_store(run.folder / "run", {.read_only = true});
  storage::History history;
  REQUIRE(history.refresh(*store).ok());
  const auto metrics = storage::read_metrics(*store, history);
  REQUIRE(metrics.ok());
  REQUIRE(metrics->size() == 10);
  for (std::size_t i = 0; i < metrics->size(); ++i) CHECK((*metrics)[i].at("step") == i + 1);
}

TEST_CASE("a_save_that_fails_lets_training_go_on_and_the_end_says_so") {
  class NoSpace final : public ForwardingFiles {
   public:
    bool full = false;
    int allocate(int fd, std::uint64_t bytes) override { return full ? -ENOSPC : ForwardingFiles::allocate(fd, bytes); }
  } files;
  set_store_files(&files);
  Run run;
  run.every = "2";
  double sum = 0;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [&](std::uint64_t step) { files.full = step >= 3; });
  }) == kNotSaved);
  CHECK(sum == 45);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 2);
  files.full = false;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  CHECK(sum == 45);
  set_store_files(nullptr);
}

TEST_CASE("tracking_after_the_run_was_opened_is_refused") {
  const Run run;
  run.session([&](Session& session) {
    session.restore();
    double late = 0;
    CHECK_THROWS_AS(session.track("late", late), Error);
  });
}

TEST_CASE("an_error_that_nobody_catches_is_one_sentence_and_exit_code_1") {
  const ScratchFolder folder;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    const std::string missing = "--holdfast.dir=" + (folder / "no" / "such").string();
    std::string words[] = {"program", missing};
    char* argv[] = {words[0].data(), words[1].data(), nullptr};
    int argc = 2;
    [&]() noexcept {
      auto session = Session::start(argc, argv, {.run = "run", .device = "cpu"});
      session.restore();
    }();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  CHECK(said == "holdfast: there is no folder " + (folder / "no").string() +
                    " to make such in; make it, mount it, or choose another folder with --holdfast.dir\n");
}
