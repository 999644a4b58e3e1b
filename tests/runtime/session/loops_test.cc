// Loops of a session: nested, in a row, left by the program, stopped and declared complete.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>

#include <list>
#include <stdexcept>
#include <utility>

#include "catch.h"
#include "holdfast/runtime/data/ranges.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/session/session.h"
#include "session/progress.h"
#include "session_run.h"

namespace {

using namespace holdfast;

struct Numbers : torch::data::datasets::Dataset<Numbers> {
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({1}, static_cast<float>(index)), torch::zeros({1})};
  }
  std::optional<std::size_t> size() const override { return 10; }
};
auto batches() { return Loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 2}); }  // 5 steps

int count_to(Session& session, double& x, std::uint64_t count, double leaves_at) {
  session.track("x", x);
  for ([[maybe_unused]] auto& step : session.steps({.count = count})) {
    x += 1;
    if (x == leaves_at) break;
  }
  return session.finish();
}

}  // namespace

TEST_CASE("each_loop_numbers_its_own_steps_and_the_session_counts_those_of_innermost_loops") {
  const Run run;
  run.session([](Session& session) {
    std::vector<std::uint64_t> outer, inner;
    for (auto& a : session.steps({.count = 2})) {
      outer.push_back(a.number());
      for (auto& b : session.steps({.count = 3})) inner.push_back(b.number());
      outer.push_back(a.number());
    }
    CHECK(session.step() == 6);
    for (auto& step : session.steps({.count = 2})) inner.push_back(step.number());
    CHECK(session.step() == 8);
    CHECK(outer == std::vector<std::uint64_t>{1, 1, 2, 2});
    CHECK(inner == std::vector<std::uint64_t>{1, 2, 3, 1, 2, 3, 1, 2});
    return session.finish();
  });
}

TEST_CASE("a_loop_inside_a_loop_over_the_same_loader_is_refused_when_it_begins") {
  const Run run;
  run.session([](Session& session) {
    auto loader = batches();
    bool refused = false;
    try {
      for ([[maybe_unused]] auto& outer : session.steps(loader, {.epochs = 1})) {
        for ([[maybe_unused]] auto& inner : session.steps(loader, {.epochs = 1})) FAIL("it began");
      }
    } catch (const Error& error) {
      refused = std::string(error.what()).find("same loader") != std::string::npos;
    }
    CHECK(refused);
  });
}

TEST_CASE("a_step_that_is_left_counts_and_the_next_start_continues_after_it") {
  const Run run;
  double x = 0;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 100, 5); }) == kRunAgain);
  CHECK(run.said().find("left in step 5 of 100") != std::string::npos);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 5);
  CHECK(run.versions()[0].values.at("x") == 5);
  x = -1;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 7, 0); }) == kDone);
  CHECK(x == 7);
}

TEST_CASE("return_and_an_exception_leave_a_loop_as_break_does") {
  for (const bool throws : {false, true}) {
    const Run run;
    double x = 0;
    const auto life = [&](int leaves_at) {
      return run.session([&](Session& session) {
        session.track("x", x);
        try {
          [&] {
            for (auto& step : session.steps({.count = 6})) {
              x += 1;
              if (static_cast<int>(step.number()) != leaves_at) continue;
              if (throws) throw std::runtime_error("the program's own");
              return;
            }
          }();
        } catch (const std::runtime_error&) {
        }
        return session.finish();
      });
    };
    CHECK(life(4) == kRunAgain);
    REQUIRE(run.versions().size() == 1);
    CHECK(run.versions()[0].position.step == 4);
    x = -1;
    CHECK(life(0) == kDone);
    CHECK(x == 6);
  }
}

TEST_CASE("a_loop_that_is_left_in_its_last_step_is_complete") {
  const Run run;
  double x = 0;
  CHECK(run.session([&](Session& s) { return count_to(s, x, 5, 5); }) == kDone);
  CHECK(run.said().find("the loop was left in its last step, which counts: the loop is complete") != std::string::npos);
  const Run other;
  CHECK(other.session([&](Session& session) {
    auto loader = batches();
    for (auto& batch : session.steps(loader, {.epochs = 1})) {
      if (batch.number() == 5) break;
    }
    return session.finish();
  }) == kDone);
}

TEST_CASE("an_exception_in_a_loops_last_step_is_no_end_without_a_word") {
  const Run run;
  int steps = 0;
  const auto life = [&](bool throws) {
    return run.session([&](Session& session) {
      session.track("steps", steps);
      try {
        for (auto& step : session.steps({.count = 3})) {
          ++steps;
          if (throws && step.number() == 3) throw std::runtime_error("out of memory");
        }
      } catch (const std::runtime_error&) {
      }
      return session.finish();
    });
  };
  CHECK(life(true) == kRunAgain);
  CHECK(run.said().find("the loop was left by an exception in its last step, which counts: the next start goes past "
                        "the loop") != std::string::npos);
  steps = 0;
  CHECK(life(false) == kDone);
  CHECK(steps == 3);
}

TEST_CASE("the_last_epochs_body_that_is_left_after_its_batches_does_not_begin_again") {
  for (const std::string how : {"break", "finish", "exception"}) {
    CAPTURE(how);
    const Run run;
    int bodies = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        auto loader = batches();
        session.track("bodies", bodies);
        try {
          for (auto& epoch : session.epochs(loader, 2)) {
            for ([[maybe_unused]] auto& batch : epoch) continue;
            ++bodies;
            if (bodies < 2) continue;
            if (how == "break") break;
            if (how == "finish") return session.finish();
            throw std::runtime_error("at the end");
          }
        } catch (const std::runtime_error&) {
        }
        return session.finish();
      });
    };
    CHECK(life() == (how == "exception" ? kRunAgain : kDone));
    CHECK(bodies == 2);
    for (int again = 0; again < 2; ++again) {
      bodies = 0;
      CHECK(life() == kDone);
      CHECK(bodies == 2);
    }
  }
}

TEST_CASE("finish_in_a_loops_body_leaves_the_loop") {
  const Run run;
  double x = 0;
  const auto life = [&](std::uint64_t leaves_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& step : session.steps({.count = 6})) {
        x += 1;
        if (step.number() == leaves_at) return session.finish();
      }
      return session.finish();
    });
  };
  CHECK(life(3) == kRunAgain);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 3);
  CHECK(life(0) == kDone);
  CHECK(x == 6);
}

TEST_CASE("a_loop_declared_done_is_complete_and_the_next_start_goes_past_it") {
  for (const bool breaks : {false, true}) {
    const Run run;
    int steps = 0, epochs = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        session.track("steps", steps).track("epochs", epochs);
        for (auto& step : session.steps({.count = 100})) {
          ++steps;
          if (step.number() == 4) session.done("converged");
          if (step.number() == 4 && breaks) break;
        }
        auto loader = batches();
        for (auto& epoch : session.epochs(loader, 9)) {
          for ([[maybe_unused]] auto& batch : epoch) ++steps;
          if (++epochs == 2) session.done();
        }
        return session.finish();
      });
    };
    CHECK(life() == kDone);
    CHECK(run.said().find("complete after step 4: converged") != std::string::npos);
    CHECK(steps == 14);
    CHECK(life() == kDone);
    CHECK(steps == 14);
    CHECK(epochs == 2);
  }
  const Run run;
  run.session([](Session& session) { CHECK_THROWS_AS(session.done("late"), Error); });
}

TEST_CASE("the_program_can_ask_to_stop_at_the_next_boundary") {
  const Run run;
  double x = 0;
  const auto life = [&](std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& step : session.steps({.count = 6})) {
        if (step.number() == stops_at) session.stop("the disk is needed");
        x += 1;
      }
      return session.finish();
    });
  };
  CHECK(life(2) == kRunAgain);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].position.step == 2);
  CHECK(run.versions()[0].reason == "the disk is needed");
  CHECK(run.said().find("the disk is needed") != std::string::npos);
  CHECK(life(0) == kDone);
  CHECK(x == 6);
}

TEST_CASE("an_epoch_that_is_left_says_which_samples_it_did_not_use") {
  const Run run;
  run.session([](Session& session) {
    auto loader = batches();
    for (auto& epoch : session.epochs(loader, 2)) {
      for (auto& batch : epoch) {
        if (epoch.number() == 0 && batch.number() == 2) break;
      }
    }
    CHECK(session.step() == 7);
    return session.finish();
  });
  CHECK(run.said().find("epoch 1 was left with 6 of its 10 samples unused") != std::string::npos);
}

TEST_CASE("exit_in_a_loops_body_saves_nothing_and_says_what_is_lost", "[full]") {
  Run run;
  run.every = "2";
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    run.session([](Session& session) {
      double x = 0;
      session.track("x", x);
      for (auto& step : session.steps({.count = 9})) {
        x += 1;
        if (step.number() == 6) std::exit(3);
      }
      return session.finish();
    });
    ::_exit(9);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(run.versions().back().position.step == 4);
  CHECK(run.said().find("exit() was called before session.finish(): 1 step") != std::string::npos);
}

TEST_CASE("short_loops_in_a_row_do_not_each_save_at_their_end") {
  const Run run;
  double x = 0;
  const auto life = [&](int rounds) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (int round = 0; round < rounds; ++round) {
        for ([[maybe_unused]] auto& step : session.steps({.count = 5})) x += 1;
      }
      x = -7;  // after the last boundary
      return session.finish();
    });
  };
  CHECK(life(60) == kDone);
  const auto versions = run.versions();
  REQUIRE(versions.size() == 2);  // the end of the first loop, which could be the only one, and the program's
  CHECK(versions[0].position.step == 5);
  CHECK(versions[1].position.step == 300);
  CHECK(versions[1].values.at("x") == 300);
  CHECK(life(60) == kDone);
  CHECK(run.versions().size() == 2);
}

TEST_CASE("a_signal_between_loops_is_met_where_the_next_one_begins_and_nothing_is_done_twice") {
  const Run run;
  double x = 0;
  const auto life = [&](bool stops) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for ([[maybe_unused]] auto& step : session.steps({.count = 3})) x += 1;
      x *= 2;
      if (stops) ::raise(SIGTERM);
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.5;
      return session.finish();
    });
  };
  CHECK(life(true) == kRunAgain);
  x = -1;
  CHECK(life(false) == kDone);
  CHECK(x == 7);
}

namespace {

[[gnu::noinline]] void train_with_locals(Session& session, const char* name, bool untracks) {
  std::vector<double> values(20, 1.0);
  std::vector<std::string> texts(100, std::string(name));
  const std::string texts_name = std::string(name) + "_texts";
  session.track(name, values).track(texts_name, texts);
  for ([[maybe_unused]] auto& step : session.steps({.count = 2})) values[0] += 1;
  if (!untracks) return;
  session.untrack(name);
  session.untrack(texts_name);
}

[[gnu::noinline]] void train_others(Session& session) {
  double others[3] = {1, 2, 3};
  std::uint64_t steps = 0;
  session.track("steps", steps);
  for ([[maybe_unused]] auto& step : session.steps({.count = 2})) others[steps++] += 1;
}

}  // namespace

TEST_CASE("a_loop_that_begins_when_a_tracked_object_is_gone_is_refused_and_names_it") {
  const Run run;
  std::string said;
  run.session([&](Session& session) {
    train_with_locals(session, "values", /*untracks=*/false);
    try {
      train_others(session);
    } catch (const Error& error) {
      said = error.what();
    }
  });
  CHECK(said.find("'values'") != std::string::npos);
  CHECK(said.find("untrack(\"values\")") != std::string::npos);
  REQUIRE(run.versions().size() == 1);
  CHECK(run.versions()[0].values.at("values").at(0) == 3);
}

TEST_CASE("what_is_untracked_stays_in_later_versions_as_it_was") {
  const Run run;
  CHECK(run.session([&](Session& session) {
    train_with_locals(session, "first", /*untracks=*/true);
    train_with_locals(session, "second", /*untracks=*/true);
    return session.finish();
  }) == kDone);
  const auto last = run.versions().back();
  CHECK(last.position.step == 4);
  CHECK(last.values.at("first").at(0) == 3);
  CHECK(last.values.at("second").at(0) == 3);
  CHECK(last.find("first_texts:items:lengths") != nullptr);

  std::vector<std::string> texts;
  std::vector<double> values;
  run.session([&](Session& session) {
    session.track("first", values).track("first_texts", texts);
    session.restore();
  });
  CHECK(values.at(0) == 3);
  CHECK(texts == std::vector<std::string>(100, "first"));
}

TEST_CASE("an_earlier_loop_cannot_be_made_longer_once_a_later_phase_has_begun") {
  const Run run;
  const auto life = [&](std::uint64_t first, std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      double x = 0, y = 0;
      session.track("x", x);
      for ([[maybe_unused]] auto& step : session.steps({.count = first})) x += 1;
      session.track("y", y);
      for (auto& step : session.steps({.count = 4})) {
        y += 1;
        if (step.number() == stops_at) session.stop("enough");
      }
      CHECK(y == static_cast<double>(stops_at == 0 ? 4 : stops_at));
      return session.finish();
    });
  };
  CHECK(life(3, 2) == kRunAgain);
  CHECK_THROWS_AS(life(5, 0), Error);
  CHECK(life(3, 0) == kDone);
}

TEST_CASE("a_while_loop_of_next_goes_on_where_it_was_and_ends_by_done") {
  Run run;
  run.every = "1";
  double x = 0;
  std::vector<std::uint64_t> numbers;
  const auto life = [&](std::uint64_t stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      while (const auto step = session.next()) {
        numbers.push_back(step->number());
        x += 1;
        if (step->number() == stops_at) session.stop("enough");
        if (x == 7) session.done("converged");
      }
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.25;
      return session.finish();
    });
  };
  CHECK(life(3) == kRunAgain);
  CHECK(run.versions().back().position.step == 3);
  x = -1;
  CHECK(life(5) == kRunAgain);
  CHECK(life(0) == kDone);
  CHECK(numbers == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7});
  CHECK(x == 7.5);
  x = -1;
  CHECK(life(0) == kDone);
  CHECK(x == 7.5);
}

TEST_CASE("a_while_loop_of_next_that_is_left_ends_as_other_loops_do") {
  for (const bool says_done : {false, true}) {
    const Run run;
    double x = 0;
    const auto life = [&] {
      return run.session([&](Session& session) {
        session.track("x", x);
        while (session.next()) {
          x += 1;
          if (x == 4 && says_done) session.done("converged");
          if (x == 4 || x == 9) break;
        }
        if (says_done) {
          for ([[maybe_unused]] auto& step : session.steps({.count = 2})) x += 0.25;
        }
        return session.finish();
      });
    };
    CHECK(life() == (says_done ? kDone : kRunAgain));
    CHECK(run.versions().back().position.step == (says_done ? 6 : 4));
    CHECK(life() == (says_done ? kDone : kRunAgain));
    CHECK(x == (says_done ? 4.5 : 9));
  }
}

TEST_CASE("while_loops_of_next_stand_in_the_bodies_of_others_and_have_loops_in_their_own") {
  double x = 0;
  const auto life = [&](const Run& run, double stops_at) {
    return run.session([&](Session& session) {
      session.track("x", x);
      for (auto& round : session.steps({.count = 3})) {
        while (session.next()) {
          for (auto& step : session.steps({.count = 2})) {
            x = x * 1.5 + static_cast<double>(round.number() + step.number());
            if (x > stops_at) session.stop("enough");
          }
          if (x > 20 * static_cast<double>(round.number())) {
            session.done();
            break;
          }
        }
      }
      return session.finish();
    });
  };
  const Run undisturbed, stopped;
  CHECK(life(undisturbed, 1e9) == kDone);
  const double expected = std::exchange(x, 0);
  for (const double stops_at : {3.0, 10.0, 40.0}) CHECK(life(stopped, stops_at) == kRunAgain);
  CHECK(life(stopped, 1e9) == kDone);
  CHECK(x == expected);
}

TEST_CASE("calls_of_next_that_cannot_be_told_apart_are_refused") {
  const Run run;
  run.session([](Session& session) {
    std::string nested, called_again;
    while (session.next()) {
      try {
        session.next();
      } catch (const Error& error) {
        nested = error.what();
      }
      session.done();
    }
    try {
      while (session.next()) {
        session.done();
        for ([[maybe_unused]] auto& step : session.steps({.count = 1})) continue;
      }
    } catch (const Error& error) {
      called_again = error.what();
    }
    CHECK(nested.find("loops_test.cc:") != std::string::npos);
    CHECK(nested.find("use session.steps()") != std::string::npos);
    CHECK(called_again.find("let session.next() end the loop") != std::string::npos);
  });
}

TEST_CASE("the_runs_own_progress_cannot_be_untracked") {
  const Run run;
  run.session([](Session& session) {
    CHECK_THROWS_AS(session.untrack("holdfast"), Error);
    return session.finish();
  });
}

TEST_CASE("a_forgotten_optimizer_is_said_once_where_the_first_step_has_a_loop_in_its_body") {
  const Run run;
  run.session([](Session& session) {
    torch::nn::Linear net(2, 1), forgotten(2, 1);
    torch::optim::SGD optimizer(net->parameters(), 0.1);
    session.track("net", net).track("optimizer", optimizer).track("forgotten", forgotten);
    for ([[maybe_unused]] auto& round : session.steps({.count = 1})) {
      for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
        (net->forward(torch::ones({1, 2})) + forgotten->forward(torch::ones({1, 2}))).sum().backward();
      }
    }
    return session.finish();
  });
  const std::string said = run.said();
  const auto first = said.find("parameters of 'forgotten'");
  REQUIRE(first != std::string::npos);
  CHECK(said.find("parameters of 'forgotten'", first + 1) == std::string::npos);
}

TEST_CASE("a_loop_without_a_count_ends_where_its_state_says") {
  const Run run;
  double loss = 64;
  const auto life = [&](double stops_at) {
    return run.session([&](Session& session) {
      session.track("loss", loss);
      for ([[maybe_unused]] auto& step : session.steps()) {
        loss /= 2;
        if (loss == stops_at) session.stop("enough");
        if (loss < 1) session.done("converged");
      }
      return session.finish();
    });
  };
  CHECK(life(8) == kRunAgain);
  loss = 0;
  CHECK(life(0) == kDone);
  CHECK(loss == 0.5);
  CHECK(life(0) == kDone);
  CHECK(loss == 0.5);
}

TEST_CASE("counts_are_signed_or_not_and_never_negative") {
  const Run run;
  run.session([](Session& session) {
    const int three = 3;
    const std::int64_t two = 2;
    int steps = 0;
    for ([[maybe_unused]] auto& step : session.steps({.count = three})) ++steps;
    auto loader = batches();
    for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = two})) ++steps;
    CHECK(steps == 13);
    const int below = -1;
    std::string refusal;
    try {
      session.steps({.count = below});
    } catch (const Error& error) {
      refusal = error.what();
    }
    CHECK(refusal == "the count of a loop is -1: it must be 0 or more");
    CHECK_THROWS_AS(session.epochs(loader, below), Error);
    CHECK_THROWS_AS(session.steps(loader, {.epochs = below}), Error);
  });
}

TEST_CASE("epochs_over_ones_own_batches_go_on_inside_an_epoch") {
  Run run;
  run.every = "1";
  std::vector<std::string> order;
  double sum = 0;
  const auto life = [&](int stops_at, std::vector<double> own = {1, 2, 3, 4}, bool allowed = false) {
    auto options = run.options();
    options.allow_dataset_change = allowed;
    return run.session(
        [&](Session& session) {
          session.track("sum", sum);
          int seen = 0;
          for (auto& epoch : session.epochs({.count = 3}, own)) {
            for (double& batch : epoch) {
              sum = sum * 2 + batch;
              order.push_back(fmt::format("{}:{}", epoch.number(), batch));
              if (++seen == stops_at) session.stop("enough");
            }
            sum += 100;
          }
          return session.finish();
        },
        options);
  };
  CHECK(life(6) == kRunAgain);
  CHECK(run.versions().back().position.epoch == 1);
  CHECK(run.versions().back().position.samples == 0);

  std::string refusal;
  try {
    life(0, {1, 2, 3});
  } catch (const Error& error) {
    refusal = error.what();
  }
  CHECK(refusal.find("the program has 3 batches, and the checkpoint was made after 2 of 4 in epoch 2") !=
        std::string::npos);
  SECTION("with the same number") {
    order.clear();
    CHECK(life(2) == kRunAgain);  // where an epoch's batches are finished, but its body is not
    CHECK(life(0) == kDone);
    CHECK(order == std::vector<std::string>{"1:3", "1:4", "2:1", "2:2", "2:3", "2:4"});
    CHECK(life(0) == kDone);
    const double resumed = std::exchange(sum, 0);
    const Run other;
    other.session([&](Session& session) {
      session.track("sum", sum);
      std::list<double> own{1, 2, 3, 4};
      for (auto& epoch : session.epochs({.count = 3}, own)) {
        for (const double batch : epoch) sum = sum * 2 + batch;
        sum += 100;
      }
      return session.finish();
    });
    CHECK(sum == resumed);
  }
  SECTION("with another one where that is allowed") {
    order.clear();
    CHECK(life(0, {1, 2, 3}, true) == kDone);
    CHECK(order == std::vector<std::string>{"1:1", "1:2", "1:3", "2:1", "2:2", "2:3"});
  }
}

TEST_CASE("another_number_of_ones_own_batches_is_fine_where_an_epoch_begins") {
  Run run;
  int seen = 0;
  const auto life = [&](std::uint64_t epochs, std::size_t count) {
    return run.session([&](Session& session) {
      session.track("seen", seen);
      std::vector<int> own(count, 1);
      for (auto& epoch : session.epochs({.count = epochs}, own)) {
        for (const int one : epoch) seen += one;
        own.push_back(1);
      }
      return session.finish();
    });
  };
  CHECK(life(2, 3) == kDone);
  CHECK(seen == 3 + 4);
  CHECK(life(3, 6) == kDone);
  CHECK(seen == 7 + 6);
}

TEST_CASE("progress_of_versions_that_do_not_say_at_which_loop_they_were_made_is_that_of_the_last_loop") {
  Progress progress;
  LoopPosition counted;
  counted.target = 9;
  const auto first = progress.begin(counted);
  const auto position = [](int done) { return nlohmann::json{{"kind", "count"}, {"done", done}}; };
  progress.set_state({{"step", 7}, {"samples", 0}, {"loops", {position(9), position(3)}}});
  progress.resume(*first);
  CHECK(first->done == 9);
  CHECK_FALSE(first->saved_here);
  const auto second = progress.begin(counted);
  progress.resume(*second);
  CHECK(second->done == 3);
  CHECK(second->saved_here);
}
