// What a session does at its boundaries, with real signals, real files and a program of one number.
#include "holdfast/runtime/session/session.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <stdexcept>

#include "catch.h"
#include "checkpoint/store_files.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/pipeline/stages/accumulate.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/runtime/pipeline/stages/ema.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/metrics.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "session_run.h"
#include "storage/forwarding_files.h"
#include "storage/scratch_folder.h"

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

// Calls back when it is saved and loaded.
struct Watched {
  std::function<void()> on_save = [] {};
  std::function<void()> on_load = [] {};
  void save(State& state) const {
    state.put("there", true);
    on_save();
  }
  void load(const State&) { on_load(); }
};

// Adds every sample to a sum; `body` runs in each step.
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

// One epoch that records its steps and gets a stop request in one of them (0: never).
struct Noted {
  double sum = 0;
  std::vector<std::uint64_t> steps;
  auto stopping_at(std::uint64_t stop_at) {
    return [this, stop_at](Session& session) {
      return sum_samples(session, 1, sum, [&](std::uint64_t step) {
        steps.push_back(step);
        if (step == stop_at) ::raise(SIGTERM);
      });
    };
  }
};

}  // namespace

TEST_CASE("a_signal_to_stop_saves_at_the_next_boundary_and_the_same_command_goes_on") {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const Run run;
    const auto former = ::signal(signal, SIG_DFL);  // nohup and background shells ignore some signals
    double sum = 0;
    std::vector<std::uint64_t> steps;
    const auto remember = [&](std::uint64_t step) {
      steps.push_back(step);
      if (step == 3 && steps.size() == 3) ::raise(signal);
    };
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kRunAgain);
    REQUIRE(run.versions().size() == 1);
    CHECK(run.versions()[0].position.step == 3);
    sum = -1000;  // the saved value is restored
    CHECK(run.session([&](Session& s) { return sum_samples(s, 2, sum, remember); }) == kDone);
    CHECK(steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    CHECK(sum == 2 * 45);
    ::signal(signal, former);
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

TEST_CASE("a_signal_while_saving_or_loading_stops_the_run_as_well") {
  Run run;
  run.every = "2";
  double sum = 0;
  Watched watched;
  const auto program = [&](Session& session) {
    session.track("watched", watched);
    return sum_samples(session, 2, sum, [&](std::uint64_t step) {
      watched.on_save = [step] {
        if (step == 2) ::raise(SIGTERM);
      };
    });
  };
  CHECK(run.session(program) == kRunAgain);
  auto versions = run.versions();
  REQUIRE(versions.size() == 2);
  CHECK(versions[0].position.step == 2);
  CHECK(versions[1].position.step == 3);
  CHECK(versions[1].reason == "SIGTERM");
  const double saved = std::exchange(sum, -1000);
  watched.on_load = [] { ::raise(SIGTERM); };
  CHECK(run.session(program) == kRunAgain);
  CHECK(sum == saved);
  CHECK(run.versions().size() == 2);
  watched.on_load = [] {};
  CHECK(run.session(program) == kDone);
  CHECK(sum == 2 * 45);
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
  CHECK(run.session([&](Session& s) { return sum_samples(s, 3, sum); }) == kDone);  // more epochs: it continues
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
    for ([[maybe_unused]] auto& step : session.steps({.count = 20})) {
      const auto sample = static_cast<std::uint64_t>(other.draw().data.sum().item<double>());
      hash = hash * 31 + engine() + sample;
      ++drawn;
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
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

TEST_CASE("a_loop_that_has_not_begun_keeps_its_place") {
  const Run run;
  std::uint64_t first = 0, second = 0;
  const auto program = [&](Session& session, std::uint64_t epochs, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("first", first).track("second", second);
    const auto stop = [&] {
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
    };
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = epochs})) ++first, stop();
    for ([[maybe_unused]] auto& step : session.steps({.count = 4})) ++second, stop();
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 1, 7); }) == kRunAgain);
  CHECK(second == 2);
  CHECK(run.session([&](Session& s) { return program(s, 2, 9); }) == kRunAgain);  // in the first loop, now longer
  CHECK(run.session([&](Session& s) { return program(s, 2, 0); }) == kDone);
  CHECK(first == 10);
  CHECK(second == 4);
}

TEST_CASE("two_loops_over_one_loader_have_epochs_of_their_own") {
  const Run run;
  std::uint64_t first = 0, second = 0;
  const auto program = [&](Session& session, std::uint64_t stop_at) {
    auto loader = batches();
    session.track("first", first).track("second", second);
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 1})) ++first;
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 2})) {
      ++second;
      if (session.step() + 1 == stop_at) ::raise(SIGTERM);
    }
    return session.finish();
  };
  CHECK(run.session([&](Session& s) { return program(s, 12); }) == kRunAgain);
  CHECK(second == 7);
  CHECK(run.session([&](Session& s) { return program(s, 0); }) == kDone);
  CHECK(first == 5);
  CHECK(second == 10);
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
  double sum = 0, former = 1, other = 7;
  const auto program = [&](Session& session, std::uint64_t epochs) {
    session.track("former", former);
    return sum_samples(session, epochs, sum);
  };
  run.session([&](Session& s) { return program(s, 1); });
  sum = -1;
  std::string said;
  run.session([&](Session& session) {
    session.track("sum", sum).track("other", other);
    try {
      session.restore();
    } catch (const Error& error) {
      CHECK(error.code() == StatusCode::misfit);
      said = error.what();
    }
  });
  CHECK(said.find("former") != std::string::npos);
  CHECK(said.find("other") != std::string::npos);
  CHECK(sum == -1);
  CHECK(other == 7);
  CHECK(run.history().opens().size() == 1);  // the run was not taken over
  CHECK(run.session([&](Session& s) { return program(s, 2); }) == kDone);
  CHECK(sum == 90);
  auto loose = run.options();
  loose.allow_missing = {"other"};
  loose.allow_unexpected = {"former"};
  sum = -1;
  run.session(
      [&](Session& session) {
        session.track("sum", sum).track("other", other);
        CHECK(session.restore());
      },
      loose);
  CHECK(sum == 90);
  CHECK(other == 7);
}

TEST_CASE("a_run_with_versions_is_started_anew_only_where_that_was_asked_for") {
  Run run;
  run.every = "2";
  auto given = run.options();
  given.keep = 0;
  Noted noted;
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  noted.steps.clear();
  SECTION("none of them loads") {
    for (const auto& payload : boost::filesystem::directory_iterator(run.folder / "run" / "data")) {
      boost::filesystem::resize_file(payload, 100);
    }
    std::string said;
    try {
      run.session(noted.stopping_at(0), given);
    } catch (const Error& error) {
      said = error.what();
    }
    CHECK(said.find("none can be resumed from") != std::string::npos);
    CHECK(said.find("--holdfast.fresh") != std::string::npos);
    CHECK(noted.steps.empty());
    CHECK(run.history().opens().size() == 1);
  }
  auto fresh = given;
  fresh.fresh = true;
  noted.sum = 0;
  CHECK(run.session(noted.stopping_at(3), fresh) == kRunAgain);
  CHECK(run.session(noted.stopping_at(0), given) == kDone);  // continues from the new beginning
  CHECK(noted.steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5});
  CHECK(noted.sum == 45);
  CHECK(run.history().versions().size() == 7);  // three from before; 2, 3; 4, 5
}

TEST_CASE("a_rewind_goes_on_from_the_chosen_version_and_later_starts_stay_on_its_line") {
  Run run;
  run.every = "2";
  auto given = run.options();
  given.keep = 0;
  Noted noted;
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  noted.steps.clear();
  auto rewound = given;
  rewound.from = std::to_string(run.versions().front().uid.seq);
  SECTION("after a save of its own") { CHECK(run.session(noted.stopping_at(3), rewound) == kRunAgain); }
  SECTION("before it") {
    run.session(
        [&](Session& session) {
          session.track("sum", noted.sum);
          CHECK(session.restore());
          CHECK(session.step() == 2);
        },
        rewound);
    noted.sum = 0;
    CHECK(run.session(noted.stopping_at(3), given) == kRunAgain);
  }
  CHECK(run.session(noted.stopping_at(0), given) == kDone);
  CHECK(noted.steps == std::vector<std::uint64_t>{3, 4, 5});
  CHECK(noted.sum == 45);
}

// The session that loses its run is another process, which waits inside its third step during the takeover.
TEST_CASE("a_session_whose_run_was_taken_over_stops_and_says_so", "[full]") {
  Run run;
  run.every = "2";
  int there[2], go_on[2];
  REQUIRE(::pipe(there) == 0);
  REQUIRE(::pipe(go_on) == 0);
  char byte = 0;
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    double sum = 0;
    std::uint64_t last = 0;
    const int code = run.session([&](Session& session) {
      return sum_samples(session, 2, sum, [&](std::uint64_t step) {
        last = step;
        if (step == 3 && (::write(there[1], &byte, 1) != 1 || ::read(go_on[0], &byte, 1) != 1)) ::_exit(2);
      });
    });
    ::_exit(last == 4 ? code : 3);
  }
  REQUIRE(::read(there[0], &byte, 1) == 1);
  double sum = 0, theirs = 0;
  const auto other = [&](Session& session) { return sum_samples(session, 2, theirs); };
  CHECK_THROWS_AS(run.session(other), Error);  // the run has a living session
  auto takeover = run.options();
  takeover.take_over = true;
  CHECK(run.session(other, takeover) == kDone);
  CHECK(theirs == 90);
  REQUIRE(::write(go_on[1], &byte, 1) == 1);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == kSuperseded);
  CHECK(run.close_notes().size() == 1);
  CHECK(run.session([&](Session& session) { return sum_samples(session, 2, sum); }) == kDone);
  CHECK(sum == 90);
}

TEST_CASE("a_close_note_says_why_the_session_ended_and_what_it_did") {
  Run run;
  run.every = "2";
  Noted noted;
  run.session(noted.stopping_at(3));
  run.session(noted.stopping_at(0));
  const auto notes = run.close_notes();
  REQUIRE(notes.size() == 2);
  CHECK(notes[0].reason == "SIGTERM");
  CHECK(notes[1].reason == "end");
  const nlohmann::json expected[] = {{{"exit_code", 75}, {"steps", 3}, {"saves", 2}, {"lost_steps", 0}},
                                     {{"exit_code", 0}, {"steps", 2}, {"saves", 2}, {"lost_steps", 0}}};
  for (const int i : {0, 1}) {
    auto details = notes[static_cast<std::size_t>(i)].details;
    CHECK(details.at("seconds").get<double>() > 0);
    details.erase("seconds");
    CHECK(details == expected[i]);
  }
}

TEST_CASE("metrics_have_each_step_once_whatever_was_repeated") {
  Run run;
  run.every = "4";
  const auto life = [&](int number, std::uint64_t dies_at) {
    return run.session([&](Session& session) {
      auto loader = batches();
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        if (number == 1 && batch.number() == 5) CHECK(run.metrics().size() == 4);  // saved metrics are not repeated
        session.log({{"life", number}});
        if (batch.number() == dies_at) throw std::runtime_error("an end without a save");
      }
      session.log({{"accuracy", 0.5}});
      return session.finish();
    });
  };
  CHECK_THROWS_AS(life(1, 6), std::runtime_error);
  CHECK(run.metrics().size() == 6);
  CHECK(life(2, 0) == kDone);
  const auto metrics = run.metrics();
  REQUIRE(metrics.size() == 10);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    CHECK(metrics[i].at("step") == i + 1);
    CHECK(metrics[i].at("life") == (i < 4 ? 1 : 2));
  }
  CHECK(metrics.back().at("accuracy") == 0.5);
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
  CHECK(run.close_notes().front().details.at("lost_steps") == 3);
  files.full = false;
  CHECK(run.session([&](Session& s) { return sum_samples(s, 1, sum); }) == kDone);
  CHECK(sum == 45);
  set_store_files(nullptr);
}

TEST_CASE("a_start_says_what_the_session_cannot_do_for_this_program") {
  const std::string untracked = "no parameters are saved", useless = "option precision, bf16, changes nothing";
  const auto says = [](const Run& run, const std::string& words) {
    std::ifstream file((run.folder / "stderr").string());
    return std::string(std::istreambuf_iterator<char>(file), {}).find(words) != std::string::npos;
  };
  const Run plain;
  auto options = plain.options();
  options.precision = "bf16";
  double sum = 0;
  plain.session([&](Session& s) { return sum_samples(s, 1, sum); }, options);
  CHECK(says(plain, untracked));
  CHECK(says(plain, useless));

  const Run piped;
  options.dir = piped.options().dir;
  piped.session(
      [&](Session& s) {
        torch::nn::Linear net(1, 1);
        torch::optim::SGD optimizer(net->parameters(), 0.01);
        auto pipeline = s.pipeline(net, optimizer, {Amp()});
        s.restore();
        return s.finish();
      },
      options);
  CHECK(says(piped, " on cpu, "));
  CHECK(says(piped, " threads, bf16, seed "));
  CHECK_FALSE(says(piped, untracked));
  CHECK_FALSE(says(piped, useless));
}

TEST_CASE("tracking_and_untracking_in_a_loops_body_are_refused") {
  const Run run;
  run.session([&](Session& session) {
    double early = 0, late = 0;
    session.track("early", early);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
      CHECK_THROWS_AS(session.track("late", late), Error);
      CHECK_THROWS_AS(session.untrack("early"), Error);
    }
    return session.finish();
  });
}

TEST_CASE("a_launcher_is_told_how_far_the_run_is_saved") {
  Run run;
  run.every = "2";
  const std::string told = (run.folder / "progress").string();
  ::setenv("HOLDFAST_PROGRESS", told.c_str(), 1);
  double sum = 0;
  std::vector<std::string> seen;
  CHECK(run.session([&](Session& s) {
    return sum_samples(s, 1, sum, [&](std::uint64_t) {
      std::string step = "-";
      std::ifstream(told) >> step;
      seen.push_back(step);
    });
  }) == kDone);
  ::unsetenv("HOLDFAST_PROGRESS");
  CHECK(seen == std::vector<std::string>{"-", "-", "2", "2", "4"});
  std::string step;
  std::ifstream(told) >> step;
  CHECK(step == "5");
}

namespace {

struct Weight : torch::nn::Module {
  torch::Tensor w = register_parameter("w", torch::zeros({1}));
};

}  // namespace

TEST_CASE("a_window_that_a_loop_left_is_dropped_and_the_next_loop_begins_its_own") {
  Run run;
  run.session([](Session& s) {
    Weight net;
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
    auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
    Batches loader = batches(), other(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 5});
    const auto slope = [&](double x) { return [&net, x] { return (net.w * x).sum(); }; };
    for (auto& batch : s.steps(loader, {.epochs = 2})) {
      pipeline.step(batch, slope(100));
      if (batch.number() == 2) break;
    }
    for (auto& batch : s.steps(other, {.epochs = 1})) pipeline.step(batch, slope(1));
    CHECK(net.w.item<double>() == -1);
    for (auto& step : s.steps({.count = 5})) {
      pipeline.step(step, slope(100));
      break;
    }
    for (auto& step : s.steps({.count = 3})) pipeline.step(step, slope(1));
    CHECK(net.w.item<double>() == -2);
    CHECK(pipeline.updates() == 2);
    return s.finish();
  });
}

TEST_CASE("a_window_of_a_later_loop_goes_on_after_a_resume") {
  Run run;
  run.every = "1";
  for (const bool again : {false, true}) {
    const auto life = [again](Session& s) {
      Weight net;
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
      auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
      const auto step = [&](const StepInfo& at, double x) { pipeline.step(at, [&] { return (net.w * x).sum(); }); };
      for (auto& at : s.steps({.count = 2})) step(at, 1);
      for (auto& at : s.steps({.count = 3})) {
        if (!again && at.number() == 3) throw std::runtime_error("an end without a save");
        step(at, at.number() == 3 ? 4 : 1);
      }
      CHECK(net.w.item<double>() == -3);
      s.finish();
    };
    if (again) {
      run.session(life);
    } else {
      CHECK_THROWS_AS(run.session(life), std::runtime_error);
    }
  }
}

TEST_CASE("parameters_that_were_unfrozen_in_mid_run_are_trained_on_in_a_pipeline_after_a_resume") {
  Run run;
  run.every = "1";
  for (const bool again : {false, true}) {
    const auto life = [&](Session& s) {
      Weight net;
      const torch::Tensor other = net.register_parameter("other", torch::zeros({1}));
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
      auto pipeline = s.pipeline(net, optimizer, {Ema(0.5)});
      torch::Tensor(other).set_requires_grad(false);
      for (auto& at : s.steps({.count = 4})) {
        if (at.number() == 2) torch::Tensor(other).set_requires_grad(true);
        if (!again && at.number() == 3) throw std::runtime_error("an end without a save");
        pipeline.step(at, [&] { return (net.w + other).sum(); });
      }
      CHECK(net.w.item<double>() == -4);
      CHECK(other.item<double>() == -3);
      s.finish();
    };
    if (again) {
      run.session(life);
    } else {
      CHECK_THROWS_AS(run.session(life), std::runtime_error);
    }
  }
}

TEST_CASE("eval_after_the_last_step_makes_no_further_version") {
  const Run run;
  for (int start = 0; start < 2; ++start) {
    run.session([&](Session& s) {
      Weight net;
      s.track("net", net);
      for ([[maybe_unused]] auto& at : s.steps({.count = 2})) {
      }
      net.eval();
      CHECK(s.finish() == kDone);
    });
    CHECK(run.versions().size() == 1);
    CHECK(run.versions()[0].values.at("net").at("eval").empty());
  }
}

TEST_CASE("a_start_says_what_makes_it_other_than_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, bool stops) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        if (stops && batch.number() == 1) session.stop("enough");
      }
      return session.finish();
    });
  };
  CHECK(life(2, true) == kRunAgain);
  CHECK(life(4, false) == kDone);
  CHECK(run.said().find("sample-exact, not bit-exact: batches of 2 → 4 samples") != std::string::npos);
}

TEST_CASE("a_loop_in_a_body_says_what_makes_it_other_than_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, bool stops) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      for (auto& round : session.steps({.count = 2})) {
        for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 1})) continue;
        if (stops && round.number() == 1) session.stop("enough");  // between two loops over the loader
      }
      return session.finish();
    });
  };
  CHECK(life(2, true) == kRunAgain);
  CHECK(life(4, false) == kDone);
  CHECK(run.said().find("sample-exact, not bit-exact: batches of 2 → 4 samples") != std::string::npos);
}

TEST_CASE("a_loader_that_is_drawn_from_by_hand_says_what_makes_it_other_than_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, std::uint64_t steps) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      session.track("by_hand", loader);
      for ([[maybe_unused]] auto& step : session.steps({.count = steps})) (void)loader.next();
      return session.finish();
    });
  };
  CHECK(life(2, 2) == kDone);
  CHECK(run.said().find("by_hand") == std::string::npos);
  CHECK(life(4, 3) == kDone);
  CHECK(run.said().find("'by_hand': sample-exact, not bit-exact: batches of 2 → 4 samples") != std::string::npos);
}

TEST_CASE("an_optimizer_that_was_not_tracked_is_named_by_its_module_at_the_first_step") {
  for (const bool drops_gradients_first : {true, false}) {
    const Run run;
    run.session([&](Session& session) {
      torch::nn::Linear net(1, 1), target(1, 1), with_optimizer(1, 1);
      torch::optim::Adam optimizer(net->parameters(), 0.1);
      torch::optim::SGD tracked(with_optimizer->parameters(), 0.1);
      session.track("net", net).track("target", target).track("with_optimizer", with_optimizer);
      session.track("tracked", tracked);
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) {
        if (drops_gradients_first) optimizer.zero_grad();
        const torch::Tensor x = torch::ones({1, 1});
        (with_optimizer->forward(net->forward(x)) - target->forward(x).detach()).sum().backward();
        optimizer.step();
        tracked.step();
        if (!drops_gradients_first) optimizer.zero_grad();
      }
      return session.finish();
    });
    INFO(run.said());
    CHECK(run.said().find("no tracked optimizer holds the parameters of 'net'") != std::string::npos);
    CHECK(run.said().find("parameters of 'target'") == std::string::npos);
    CHECK(run.said().find("parameters of 'with_optimizer'") == std::string::npos);
  }
}

TEST_CASE("a_part_of_a_module_that_no_tracked_optimizer_holds_is_named_as_such") {
  const Run run;
  run.session([&](Session& session) {
    torch::nn::Sequential net(torch::nn::Linear(1, 1), torch::nn::Linear(1, 1));
    torch::optim::SGD optimizer(net[1]->parameters(), 0.1);
    session.track("net", net).track("optimizer", optimizer);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) net->forward(torch::ones({1, 1})).sum().backward();
    return session.finish();
  });
  CHECK(run.said().find("no tracked optimizer holds the parameters of 'net.0'") != std::string::npos);
  CHECK(run.said().find("parameters of 'net'") == std::string::npos);
}

TEST_CASE("the_folder_of_runs_is_where_the_session_was_started") {
  const ScratchFolder folder;
  boost::filesystem::create_directories(folder.path() / "elsewhere");
  const auto here = boost::filesystem::current_path();
  boost::filesystem::current_path(folder.path());
  const auto life = [](std::uint64_t count) {
    auto session = Session::start({.dir = "runs", .run = "relative"});
    double sum = 0;
    session.track("sum", sum);
    boost::filesystem::current_path("elsewhere");
    for ([[maybe_unused]] auto& step : session.steps({.count = count})) sum += 1;
    boost::filesystem::current_path("..");
    CHECK(session.finish() == kDone);
    return sum;
  };
  CHECK(life(2) == 2);
  CHECK(life(3) == 3);
  boost::filesystem::current_path(here);
  CHECK(boost::filesystem::exists(folder.path() / "runs/relative"));
  CHECK_FALSE(boost::filesystem::exists(folder.path() / "elsewhere/runs"));
}

TEST_CASE("a_restarted_job_begins_from_scratch_once_and_a_start_by_hand_says_how_to_go_on") {
  const Run run;
  auto fresh = run.options();
  fresh.fresh = true;
  Noted noted;
  CHECK(run.session(noted.stopping_at(2)) == kRunAgain);
  ::setenv("SLURM_JOB_ID", "71", 1);
  noted.sum = 0;
  noted.steps.clear();
  CHECK(run.session(noted.stopping_at(3), fresh) == kRunAgain);
  CHECK(run.session(noted.stopping_at(0), fresh) == kDone);
  ::unsetenv("SLURM_JOB_ID");
  CHECK(noted.steps == std::vector<std::uint64_t>{1, 2, 3, 4, 5});
  CHECK(noted.sum == 45);
  CHECK(run.said().find("without --holdfast.fresh") == std::string::npos);
  CHECK(run.session(noted.stopping_at(2), fresh) == kRunAgain);
  CHECK(run.said().find("run the same command again without --holdfast.fresh") != std::string::npos);
}
