// One session on several ranks: they train and save as one, and an event that stops one stops all.
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <torch/torch.h>

#include <iostream>
#include <map>
#include <mutex>
#include <set>

#include "chain.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
namespace F = torch::nn::functional;

// 23 samples, so that no batch size divides their number; a sample's number is in its data.
class Numbers : public torch::data::datasets::Dataset<Numbers> {
 public:
  explicit Numbers(std::size_t count = 23) : count_(count) {}
  torch::data::Example<> get(std::size_t index) override {
    const double x = static_cast<double>(index);
    return {torch::tensor({x / 10, std::sin(x)}, torch::kDouble), torch::tensor({std::cos(x)}, torch::kDouble)};
  }
  std::optional<std::size_t> size() const override { return count_; }

 private:
  std::size_t count_;
};

auto stacked(std::size_t count = 23) { return Numbers(count).map(torch::data::transforms::Stack<>()); }

Session start(const storage::Path& folder, std::string run, std::string every = "never", std::string device = "cpu") {
  std::string program = "test", dir = "--holdfast.dir=" + folder.string();
  char* arguments[] = {program.data(), dir.data(), nullptr};
  char** argv = arguments;
  int argc = 2;
  return Session::start(argc, argv,
                        {.run = std::move(run), .seed = 5, .every = std::move(every), .device = std::move(device)});
}

std::vector<double> values_of(const torch::Tensor& tensor) {
  const auto flat = tensor.detach().to(c10::kCPU, torch::kDouble).contiguous().view({-1});
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

// Three epochs of a linear model with momentum; prints the weights.
int train_line(const storage::Path& folder, const std::string& run, const char* device) {
  auto session = start(folder, run, "never", device);
  torch::nn::Linear net(2, 1);
  net->to(session.device(), torch::kDouble);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  Loader loader(stacked(), {.batch_size = 8});
  session.track("net", net).track("optimizer", optimizer);
  for (auto& batch : session.steps(loader, {.epochs = 3})) {
    optimizer.zero_grad();
    F::mse_loss(net->forward(batch.data), batch.target).backward();
    session.average_gradients(net);
    optimizer.step();
  }
  std::printf("%.17g %.17g %.17g\n", values_of(net->weight)[0], values_of(net->weight)[1], values_of(net->bias)[0]);
  return session.finish();
}

std::array<double, 3> weights_in(const std::string& text) {
  std::array<double, 3> weights{};
  const auto line = text.rfind('\n', text.size() - 2);
  std::istringstream words(text.substr(0, line == std::string::npos ? 0 : std::string::npos));
  std::string one;
  for (std::istringstream lines(text); std::getline(lines, one);) {
    double a = 0, b = 0, c = 0;
    if (std::sscanf(one.c_str(), "%lf %lf %lf", &a, &b, &c) == 3) weights = {a, b, c};
  }
  return weights;
}

void all_said(const std::vector<ranks::Ended>& ended, const std::vector<std::string>& words) {
  for (std::size_t rank = 0; rank < ended.size(); ++rank) {
    INFO("rank " << rank << " ended with " << ended[rank].code << " after " << ended[rank].seconds
                 << " s and said: " << ended[rank].text);
    CHECK(ended[rank].code == 1);
    CHECK(ended[rank].seconds < 5);
    for (const std::string& word : words) CHECK(ended[rank].text.find(word) != std::string::npos);
  }
}

void ranks_train_as_one(const std::vector<int>& counts, const char* device) {
  const ScratchFolder folder;
  std::array<double, 3> one{};
  for (const int count : counts) {
    const auto ended =
        ranks::run_sessions(count, [&] { return train_line(folder.path(), "line" + std::to_string(count), device); });
    for (const auto& rank : ended) {
      INFO(count << " ranks: " << rank.text);
      CHECK(rank.code == 0);
      const auto weights = weights_in(rank.text);
      if (count == 1) one = weights;
      REQUIRE(weights[0] != 0);
      for (int i = 0; i < 3; ++i) CHECK(std::abs(weights[i] - one[i]) < 1e-12);
    }
  }
}

// `words` must be in each rank's block.
void describe_prints_every_rank(int count, const char* device, const std::vector<const char*>& words) {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(count, [&]() -> int {
    auto session = start(folder.path(), "described", "never", device);
    torch::nn::Linear net(2, 1);
    net->to(session.device());
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    auto pipeline = session.pipeline(net, optimizer, {Ddp(), Amp(Precision::bf16)});
    const std::string text = session.describe();
    if (text.empty() != (session.rank() != 0)) return 3;  // only rank 0 has it
    return session.finish();
  });
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  std::size_t at = 0;
  for (int rank = 0; rank < count; ++rank) {
    INFO("rank " << rank << " of " << ended[0].text);
    CHECK(ended[static_cast<std::size_t>(rank)].code == 0);
    const std::size_t found =
        ended[0].text.find(fmt::format("rank {} of {}, local {}, on {}, pid ", rank, count, rank, host));
    REQUIRE(found != std::string::npos);
    CHECK(found >= at);
    at = found;
    const std::string block = ended[0].text.substr(at, ended[0].text.find("rank ", at + 5) - at);
    const std::string own = device == std::string("cuda") ? fmt::format("cuda:{},", rank) : std::string("cpu\n");
    CHECK(block.find("device     " + own) != std::string::npos);
    for (const char* word : words) {
      INFO(word);
      CHECK(block.find(word) != std::string::npos);
    }
  }
  for (std::size_t other = 1; other < ended.size(); ++other) CHECK(ended[other].text.find("pid ") == std::string::npos);
}

}  // namespace

TEST_CASE("ranks_train_as_one_with_uneven_batches_too", "[full]") { ranks_train_as_one({1, 2, 3, 4}, "cpu"); }

TEST_CASE("gpus_train_as_one_with_uneven_batches_too", "[gpu]") {
  if (ranks::are_on_two_gpus()) ranks_train_as_one({1, 2}, "cuda");
}

TEST_CASE("every_sample_comes_once_over_all_ranks", "[full]") {
  const ScratchFolder folder;
  for (const int count : {1, 3, 4}) {
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "samples" + std::to_string(count));
      Loader loader(stacked(), {.batch_size = 5, .workers = 2});
      std::vector<int> seen, evaluated;
      double weights = 0;
      int steps = 0;
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        weights += batch.weight();
        ++steps;
        if (batch.weight() == 0) continue;
        for (const double x : values_of(batch.data.select(1, 0))) seen.push_back(static_cast<int>(std::lround(x * 10)));
        // The position stays that of the loop while an evaluation iterates over the same data.
        if (steps == 2) {
          for (auto& part : session.evaluate(loader)) {
            for (const double x : values_of(part.data.select(1, 0))) {
              evaluated.push_back(static_cast<int>(std::lround(x * 10)));
            }
          }
        }
      }
      std::multiset<int> all, expected;
      for (const auto& one : session.all_gather(seen)) all.insert(one.begin(), one.end());
      std::vector<int> in_order = session.gather_in_order(evaluated), numbers;
      for (int i = 0; i < 23; ++i) {
        numbers.push_back(i);
        expected.insert(i);
        expected.insert(i);
      }
      if (all != expected) std::printf("wrong samples\n");
      if (in_order != numbers) std::printf("wrong evaluation\n");
      if (std::abs(session.sum(weights) - steps * count) > 1e-12) std::printf("wrong weights\n");
      return session.finish();
    });
    for (const auto& rank : ended) {
      INFO(count << " ranks: " << rank.text);
      CHECK(rank.code == 0);
      CHECK(rank.text.find("wrong") == std::string::npos);
    }
  }
}

TEST_CASE("what_each_rank_holds_for_itself_comes_back_to_it", "[full]") {
  const ScratchFolder folder;
  const auto program = [&](bool again) -> int {
    auto session = start(folder.path(), "own");
    const int rank = session.rank();
    auto alike = torch::arange(5);
    auto own = torch::full({3, 2}, again ? -1.0 : 10.0 + rank);
    double value = again ? -1 : 0.1 * rank;
    std::mt19937 engine(static_cast<unsigned>(again ? 0 : rank));
    session.track("alike", alike).track("own", own).track("value", value).track("engine", engine);
    for (auto& step : session.steps({.count = again ? 2u : 1u})) (void)step;
    std::printf("drew %.17g\n", torch::rand({1}, torch::kDouble).item<double>());
    if (again && (!own.equal(torch::full({3, 2}, 10.0 + rank)) || value != 0.1 * rank)) std::printf("wrong\n");
    if (again && engine != std::mt19937(static_cast<unsigned>(rank))) std::printf("wrong engine\n");
    return session.finish();
  };
  const auto first = ranks::run_sessions(3, [&] { return program(false); });
  const auto second = ranks::run_sessions(3, [&] { return program(true); });
  std::set<std::string> draws;
  for (std::size_t rank = 0; rank < 3; ++rank) {
    INFO("rank " << rank << ": " << first[rank].text << second[rank].text);
    CHECK(first[rank].code == 0);
    CHECK(second[rank].code == 0);
    CHECK(second[rank].text.find("wrong") == std::string::npos);
    const auto draw = [](const std::string& text) {
      return text.substr(text.find("drew"), text.find('\n', text.find("drew")) - text.find("drew"));
    };
    CHECK(draw(first[rank].text) == draw(second[rank].text));  // the generator continues where the version left it
    draws.insert(draw(first[rank].text));
  }
  CHECK(draws.size() == 3);  // each rank draws for itself
  const auto store = storage::open_file_store(folder / "own", {.read_only = true});
  storage::History history;
  REQUIRE(history.refresh(*store).ok());
  const auto reader = storage::VersionReader::open(*store, history.versions().back().uid);
  REQUIRE(reader.ok());
  CHECK(reader->manifest().find("own@2") != nullptr);
  CHECK(reader->manifest().find("alike@1") == nullptr);
  CHECK(reader->manifest().values.contains("value@1"));
}

namespace {

// A count that is sharded over the ranks.
struct Tally {
  torch::Tensor counts = torch::zeros({3});
  std::uint64_t rounds = 0;
  void save(State& state) const {
    state.put("rounds", rounds);
    if (counts.sum().item<double>() > 0) state.put("counts", counts);
  }
  void load(const State& state) {
    state.get_to("rounds", rounds);
    if (state.has("counts")) state.get_to("counts", counts);
  }
  void load_shares(const State& own, const std::vector<State>& shares) {
    own.get_to("rounds", rounds);
    counts.zero_();
    for (const State& share : shares) {
      if (share.has("counts")) counts += share.get<torch::Tensor>("counts");
    }
  }
};

}  // namespace

TEST_CASE("what_ranks_hold_shares_of_is_whole_on_any_number_of_them", "[full]") {
  const ScratchFolder folder;
  int rounds = 0;
  double whole = 0;
  for (const int count : {4, 4, 2, 3, 1, 2}) {
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "tally");
      Tally tally;
      session.track("tally", tally);
      session.restore();
      const double before = session.sum(tally.counts.sum().item<double>());
      for (auto& step : session.steps({.count = static_cast<std::uint64_t>(rounds) + 1})) {
        (void)step;
        // Rank 0 counts only in some rounds, so that at first it holds nothing where the others do.
        if (session.rank() > 0 || rounds % 2 == 1) tally.counts += session.rank() + 1.0;
        ++tally.rounds;
      }
      std::printf("before %g, after %g, rounds %llu\n", before, session.sum(tally.counts.sum().item<double>()),
                  static_cast<unsigned long long>(tally.rounds));
      return session.finish();
    });
    const double had = whole;
    for (int rank = 0; rank < count; ++rank) whole += rank > 0 || rounds % 2 == 1 ? 3 * (rank + 1) : 0;
    ++rounds;
    for (const auto& rank : ended) {
      INFO(count << " ranks: " << rank.text);
      CHECK(rank.code == 0);
      CHECK(rank.text.find(fmt::format("before {:g}, after {:g}, rounds {}", had, whole, rounds)) != std::string::npos);
    }
  }
}

TEST_CASE("what_one_rank_alone_tracks_is_no_riddle_to_the_others", "[full]") {
  struct Own {
    at::Tensor tensor = torch::ones({2});
    void save(State& state) const { state.put("tensor", tensor); }
    void load(const State& state) { state.get_to("tensor", tensor); }
  };
  const ScratchFolder folder;
  const auto program = [&](bool again, const std::vector<std::string>& unexpected) -> int {
    std::string name = "test", dir = "--holdfast.dir=" + folder.path().string();
    char* arguments[] = {name.data(), dir.data(), nullptr};
    char** argv = arguments;
    int argc = 2;
    auto session = Session::start(argc, argv, {.run = "alone", .device = "cpu", .allow_unexpected = unexpected});
    Own own;
    if (session.rank() == 1) session.track("own", own);
    if (!again) own.tensor.fill_(5);
    for (auto& step : session.steps({.count = again ? 2u : 1u})) (void)step;
    if (again && session.rank() == 1 && own.tensor[0].item<float>() != 5) std::printf("wrong\n");
    return session.finish();
  };
  for (const auto& rank : ranks::run_sessions(2, [&] { return program(false, {}); })) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
  const auto refused = ranks::run_sessions(2, [&] { return program(true, {}); });
  for (const auto& rank : refused) {
    INFO(rank.text);
    CHECK(rank.code == 1);
  }
  CHECK(refused[0].text.find("own@1 is in the checkpoint") != std::string::npos);
  for (const auto& rank : ranks::run_sessions(2, [&] { return program(true, {"own*"}); })) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    CHECK(rank.text.find("wrong") == std::string::npos);
  }
}

TEST_CASE("a_session_with_another_number_of_ranks_goes_on_with_the_same_samples", "[full]") {
  const ScratchFolder folder;
  std::map<int, int> seen;
  int turn = 0;
  for (const int count : {4, 2, 3, 1, 4}) {
    ++turn;
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "elastic", "1");
      Loader loader(stacked(), {.batch_size = 6});
      std::mt19937 own(static_cast<unsigned>(session.rank()));
      session.track("own", own);
      int steps = 0;
      for (auto& batch : session.steps(loader, {.epochs = 5})) {
        (void)own();
        if (batch.weight() > 0) {
          for (const double x : values_of(batch.data.select(1, 0))) {
            std::printf("sample %d\n", static_cast<int>(std::lround(x * 10)));
          }
        }
        if (++steps == 4) ::raise(SIGTERM);
      }
      return session.finish();
    });
    for (std::size_t rank = 0; rank < ended.size(); ++rank) {
      INFO("turn " << turn << ", rank " << rank << " of " << count << ": " << ended[rank].text);
      CHECK((ended[rank].code == 75 || ended[rank].code == 0));
      std::istringstream lines(ended[rank].text);
      for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("sample ")) ++seen[std::stoi(line.substr(7))];
      }
    }
    if (turn > 1) CHECK(ended[0].text.find("sample-exact, not bit-exact: ") != std::string::npos);
    if (turn == 2) CHECK(ended[0].text.find("4 ranks → 2") != std::string::npos);
  }
  // Until all epochs are finished.
  const auto last = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "elastic", "1");
    Loader loader(stacked(), {.batch_size = 6});
    std::mt19937 own;
    session.track("own", own);
    for (auto& batch : session.steps(loader, {.epochs = 5})) {
      for (const double x : values_of(batch.data.select(1, 0))) {
        std::printf("sample %d\n", static_cast<int>(std::lround(x * 10)));
      }
    }
    return session.finish();
  });
  for (const auto& rank : last) {
    CHECK(rank.code == 0);
    std::istringstream lines(rank.text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("sample ")) ++seen[std::stoi(line.substr(7))];
    }
  }
  REQUIRE(seen.size() == 23);
  for (const auto& [sample, times] : seen) {
    INFO("sample " << sample);
    CHECK(times == 5);
  }
}

TEST_CASE("a_signal_to_one_rank_stops_all_of_them_at_the_same_step", "[full]") {
  const ScratchFolder folder;
  for (const int asked : {0, 2}) {
    const auto ended = ranks::run_sessions(3, [&]() -> int {
      auto session = start(folder.path(), "signal" + std::to_string(asked));
      std::uint64_t last = 0;
      for (auto& step : session.steps({.count = 100000})) {
        last = step.number();
        ::usleep(static_cast<unsigned>(2000 + 500 * session.rank()));
        if (step.number() == 40 && session.rank() == asked) ::raise(SIGTERM);
      }
      std::printf("last step %llu\n", static_cast<unsigned long long>(last));
      return session.finish();
    });
    std::set<std::string> lasts;
    for (const auto& rank : ended) {
      INFO("asked " << asked << ": " << rank.text);
      CHECK(rank.code == 75);
      CHECK(rank.seconds < 10);
      const auto at = rank.text.find("last step ");
      REQUIRE(at != std::string::npos);
      lasts.insert(rank.text.substr(at, rank.text.find('\n', at) - at));
    }
    CHECK(lasts.size() == 1);
  }
}

TEST_CASE("ranks_save_together_at_times_that_rank_0_alone_measures", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(3, [&]() -> int {
    auto session = start(folder.path(), "timed", "500ms");
    double mine = session.rank();
    session.track("mine", mine);
    for (auto& step : session.steps({.count = 300})) {
      (void)step;
      ::usleep(5000);
      mine += 1;
    }
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
  std::size_t saves = 0;
  for (auto at = ended[0].text.find("saved version"); at != std::string::npos;
       at = ended[0].text.find("saved version", at + 1)) {
    ++saves;
  }
  INFO(ended[0].text);
  CHECK(saves >= 2);
  CHECK(static_cast<double>(saves) <= ended[0].seconds / 0.5 + 1);
  CHECK(ended[1].text.empty());  // only one rank prints
}

// ---------------------------------------------------------------------------------------------------------------------
// Divergence, as reported by the session

TEST_CASE("ranks_that_do_not_train_the_same_are_stopped_with_the_reason", "[full][alone]") {
  const ScratchFolder folder;
  struct Case {
    const char* name;
    std::function<int(Session&)> body;
    std::vector<std::string> words;
  };
  const auto train = [](Session& session, std::size_t samples, std::uint64_t epochs, bool average, double shift) {
    torch::nn::Linear net(2, 1);
    net->to(torch::kDouble);
    {
      const torch::NoGradGuard no_grad;
      net->bias.add_(shift);
    }
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    Loader loader(stacked(samples), {.batch_size = 8});
    session.track("net", net).track("optimizer", optimizer);
    for (auto& batch : session.steps(loader, {.epochs = epochs})) {
      optimizer.zero_grad();
      F::mse_loss(net->forward(batch.data), batch.target).backward();
      if (average) session.average_gradients(net);
      optimizer.step();
    }
    return session.finish();
  };
  const std::vector<Case> cases = {
      {"other epochs",
       [&](Session& s) { return train(s, 23, s.rank() == 1 ? 3 : 2, true, 0); },
       {"rank 1 calls session.steps of 3 epochs", "rank 0 calls session.steps of 2 epochs", "session_ranks_test.cc"}},
      {"unequal data",
       [&](Session& s) { return train(s, s.rank() == 3 ? 20 : 23, 2, true, 0); },
       {"rank 3 calls session.steps of 2 epochs of 20 samples", "of 23 samples"}},
      {"another layout of gradients",
       [&](Session& s) {
         torch::nn::Linear net(2, s.rank() == 1 ? 3 : 4);  // not tracked
         for (auto& step : s.steps({.count = 2})) {
           (void)step;
           net->forward(torch::ones({1, 2})).sum().backward();
           s.average_gradients(net);
         }
         return s.finish();
       },
       {"rank 1 calls average_gradients of 2 parameters of 9 numbers (layout ", "of 12 numbers"}},
      {"described by one",
       [&](Session& s) {
         if (s.rank() == 2) {
           (void)s.describe();
         } else {
           s.barrier();
         }
         return s.finish();
       },
       {"rank 2 calls session.describe at session_ranks_test.cc", "calls barrier at session_ranks_test.cc"}},
      {"other parameters",
       [&](Session& s) { return train(s, 23, 2, true, s.rank() == 2 ? 1e-9 : 0); },
       {"net.bias has other values on rank 2 than on rank 0 before the first step"}},
      {"gradients are not averaged",
       [&](Session& s) { return train(s, 23, 2, false, 0); },
       {"has other values on rank 1 than on rank 0 after the first step", "session.average_gradients(net)"}},
      {"gradients of several batches are not averaged",
       [&](Session& s) {
         torch::nn::Linear net(2, 1);
         net->to(torch::kDouble);
         torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
         Loader loader(stacked(), {.batch_size = 8});
         s.track("net", net).track("optimizer", optimizer);
         for (auto& batch : s.steps(loader, {.epochs = 20})) {
           F::mse_loss(net->forward(batch.data), batch.target).backward();
           if (batch.number() % 3 != 0) continue;
           optimizer.step();
           optimizer.zero_grad();
         }
         return s.finish();
       },
       {"has other values on rank 1 than on rank 0 after 4 steps", "session.average_gradients(net)"}},
      {"a pipeline without Ddp",
       [&](Session& s) {
         torch::nn::Linear net(2, 1);
         net->to(torch::kDouble);
         torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
         Loader loader(stacked(), {.batch_size = 4});
         auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
         for (auto& batch : s.steps(loader, {.epochs = 20})) {
           pipeline.step(batch, [&] { return F::mse_loss(net->forward(batch.data), batch.target); });
         }
         return s.finish();
       },
       {"has other values on rank 1 than on rank 0 after 3 steps", "a pipeline with Ddp()"}},
      {"another tracked name",
       [&](Session& s) {
         double x = 0;
         auto y = torch::zeros({2});
         torch::nn::Linear net(2, 1);
         s.track("x", x);
         if (s.rank() == 1) s.track("net", net);
         s.restore();
         return s.finish();
       },
       {"net.bias is tracked on rank 1 and not on rank 0"}},
      {"a batch for fewer ranks",
       [&](Session& s) {
         Loader loader(stacked(), {.batch_size = 3});
         for (auto& batch : s.steps(loader, {.epochs = 1})) (void)batch;
         return s.finish();
       },
       {"batch_size is 3 for 4 ranks", "make it at least 4"}},
      {"throw in a step",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 1000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 2) throw std::runtime_error("the reactor is too hot");
         }
         return s.finish();
       },
       {"rank 2 failed: the reactor is too hot"}},
      {"exit in a step",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 100000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 1) std::exit(1);
         }
         return s.finish();
       },
       {}},
      {"return without finish",
       [&](Session& s) -> int {
         for (auto& step : s.steps({.count = 100000})) {
           ::usleep(1000);
           if (step.number() == 20 && s.rank() == 1) return 1;
         }
         return s.finish();
       },
       {}},
  };
  // Also by a program that has no Ddp any more since the version was saved.
  const auto epochs_of_pipeline = [&](bool with_ddp, std::uint64_t epochs) {
    return ranks::run_sessions(2, [&, with_ddp, epochs]() -> int {
      auto session = start(folder.path(), "lost");
      torch::nn::Linear net(2, 1);
      net->to(torch::kDouble);
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
      Loader loader(stacked(), {.batch_size = 4});
      std::vector<AnyStage> stages{Accumulate(3)};
      if (with_ddp) stages.insert(stages.begin(), Ddp());
      auto pipeline = session.pipeline(net, optimizer, stages);
      for (auto& batch : session.steps(loader, {.epochs = epochs})) {
        pipeline.step(batch, [&] { return F::mse_loss(net->forward(batch.data), batch.target); });
      }
      return session.finish();
    });
  };
  for (const auto& rank : epochs_of_pipeline(true, 1)) CHECK(rank.code == 0);
  const auto lost = epochs_of_pipeline(false, 4);
  all_said(lost, {"has other values on rank 1 than on rank 0 after 3 steps"});
  CHECK(lost[0].text.find("stage ddp of the checkpoint is not in the pipeline: its state is left out, and what it set, "
                          "such as a learning rate, stays") != std::string::npos);

  int number = 0;
  for (const Case& one : cases) {
    INFO(one.name);
    ++number;
    const auto ended = ranks::run_sessions(
        4,
        [&]() -> int {
          auto session = start(folder.path(), "case" + std::to_string(number));
          ranks::note_fact();
          return one.body(session);
        },
        std::chrono::seconds(20));
    const bool throws = std::string(one.name) == "throw in a step";
    const bool leaves = std::string(one.name).find("exit") == 0 || std::string(one.name).find("return") == 0;
    if (throws) {
      CHECK(ended[2].code == -SIGABRT);
      for (const std::size_t rank : {0, 1, 3}) {
        INFO("rank " << rank << ": " << ended[rank].text);
        CHECK(ended[rank].code == 1);
        CHECK(ended[rank].text.find(one.words[0]) != std::string::npos);
        CHECK(ended[rank].seconds < 5);
      }
    } else if (leaves) {
      for (const std::size_t rank : {0, 2, 3}) {
        INFO("rank " << rank << ": " << ended[rank].text);
        CHECK(ended[rank].code == 1);
        CHECK(ended[rank].text.find("rank 1 ") != std::string::npos);
        CHECK(ended[rank].text.find("session.finish()") != std::string::npos);
        CHECK(ended[rank].seconds < 5);
      }
    } else {
      all_said(ended, one.words);
    }
    double slowest = 0;
    for (const auto& rank : ended) slowest = std::max(slowest, rank.seconds);
    std::cout << "fault: " << one.name << ", all ranks over after seconds=" << slowest << "\n";
  }
}

TEST_CASE("describe_prints_a_block_for_each_rank_in_order", "[full]") {
  describe_prints_every_rank(
      3, "cpu",
      {" in use by this process, ", " available", "computes   in bf16, ", " threads", "Holdfast 0.", "LibTorch 2."});
}

TEST_CASE("describe_prints_each_ranks_gpu", "[gpu]") {
  if (!ranks::are_on_two_gpus()) return;
  describe_prints_every_rank(
      2, "cuda", {"compute capability ", " (driver ", "  GPU        ", " free, ", " % busy", "computes   in bf16, "});
}

TEST_CASE("what_ranks_do_with_numbers_they_do_with_tensors", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "tensors", "never", "cpu");
    const auto mine = torch::full({2}, session.rank() + 1.0, torch::requires_grad());
    for (const auto& all : {session.sum(mine), session.mean(mine), session.min(mine), session.max(mine),
                            session.broadcast(mine, 1), mine.detach()}) {
      std::printf("%g ", values_of(all)[1]);
    }
    const auto net = std::make_shared<torch::nn::LinearImpl>(2, 1);
    net->forward(mine).backward();
    session.average_gradients(net);
    std::printf("%g\n", values_of(net->weight.grad())[1]);
    return session.finish();
  });
  for (const std::size_t rank : {0, 1}) {
    CAPTURE(ended[rank].text);
    CHECK(ended[rank].text.find(rank == 0 ? "3 1.5 1 2 2 1 1.5\n" : "3 1.5 1 2 2 2 1.5\n") != std::string::npos);
  }
}

TEST_CASE("another_number_of_ranks_takes_its_own_number_of_threads", "[full]") {
  const ScratchFolder folder;
  const auto threads = [&](std::size_t count, std::uint64_t steps, int set) {
    return ranks::run_sessions(count,
                               [&folder, steps, set]() -> int {
                                 auto session = start(folder.path(), "threads", "never", "cpu");
                                 if (set > 0) at::set_num_threads(set);
                                 std::uint64_t done = 0;
                                 session.track("done", done);
                                 for (auto& step : session.steps({.count = steps})) done = step.number();
                                 std::printf("with %d threads\n", at::get_num_threads());
                                 return session.finish();
                               })[0]
        .text;
  };
  CHECK(threads(1, 1, 7).find("with 7 threads") != std::string::npos);
  CHECK(threads(1, 2, 0).find("with 7 threads") != std::string::npos);
  CHECK(threads(2, 3, 0).find("with 7 threads") == std::string::npos);
}

TEST_CASE("a_note_says_which_of_several_pipelines_it_is_about", "[full]") {
  const ScratchFolder folder;
  const auto train = [&](std::uint64_t steps) {
    return ranks::run_sessions(1,
                               [&folder, steps]() -> int {
                                 auto session = start(folder.path(), "two", "never", "cpu");
                                 torch::nn::Linear left(2, 1), right(2, 1);
                                 torch::optim::SGD of_left(left->parameters(), 0.1), of_right(right->parameters(), 0.1);
                                 auto one = session.pipeline("left", left, of_left, {holdfast::LrSchedule::cosine(10)});
                                 auto other = session.pipeline("right", right, of_right,
                                                               {holdfast::LrSchedule::cosine(10 * steps)});
                                 for (auto& step : session.steps({.count = steps})) {
                                   one.step(step, [&] { return left->forward(torch::ones({1, 2})).sum(); });
                                   other.step(step, [&] { return right->forward(torch::ones({1, 2})).sum(); });
                                 }
                                 return session.finish();
                               })[0]
        .text;
  };
  CHECK(train(1).find("cosine") == std::string::npos);
  const auto said = train(2);
  CAPTURE(said);
  CHECK(said.find("holdfast: pipeline right: the learning rate was cosine(10)") != std::string::npos);
  CHECK(said.find("pipeline left") == std::string::npos);
}

// An object with its own generators.
struct Sampler {
  std::mt19937 alike{7}, own;
  at::Generator of_libtorch = at::make_generator<at::CPUGeneratorImpl>(7);
  template <class Archive>
  void holdfast_state(Archive& a) {
    a("alike", alike)("own", own)("of_libtorch", of_libtorch);
  }
};

TEST_CASE("generators_that_are_alike_on_all_ranks_are_named_and_others_are_not", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "run");
    std::mt19937 alike(7), own(static_cast<unsigned>(session.rank()));
    auto of_libtorch = at::make_generator<at::CPUGeneratorImpl>(7);
    double value = 7;
    Sampler sampler;
    sampler.own.seed(static_cast<unsigned>(session.rank()));
    session.track("alike", alike).track("own", own).track("of_libtorch", of_libtorch).track("value", value);
    session.track("sampler", sampler);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) continue;
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
  const std::string said = ended[0].text;
  INFO(said);
  CHECK(said.find("'alike' is the same on all ranks: they draw the same numbers") != std::string::npos);
  CHECK(said.find("'of_libtorch' is the same on all ranks") != std::string::npos);
  CHECK(said.find("'own' is the same") == std::string::npos);
  CHECK(said.find("'sampler.alike' is the same on all ranks") != std::string::npos);
  CHECK(said.find("'sampler.of_libtorch' is the same on all ranks") != std::string::npos);
  CHECK(said.find("'sampler.own' is the same") == std::string::npos);
  CHECK(said.find("'value' is the same") == std::string::npos);
}

// Ranks that average their gradients themselves, and add an element to a parameter at every second step. Prints the
// result, which is the same with and without a stop, on every rank.
std::string grown(const ScratchFolder& folder, const std::string& run, std::uint64_t stop_at) {
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), run);
    torch::Tensor x = torch::ones({2}, torch::requires_grad());
    torch::optim::Adam optimizer({x}, 0.1);
    session.track("x", x, resizable).track("optimizer", optimizer);
    for (auto& step : session.steps({.count = 6})) {
      optimizer.zero_grad();
      ((x - 3).square().sum() * (1.0 + session.rank())).backward();
      x.mutable_grad() = session.mean(x.grad());
      optimizer.step();
      if (step.number() % 2 == 1) {  // another tensor, with the moments of the old one
        const auto one_more = [](const torch::Tensor& of) { return torch::cat({of, torch::zeros({1})}); };
        auto state = std::move(optimizer.state().at(x.unsafeGetTensorImpl()));
        optimizer.state().erase(x.unsafeGetTensorImpl());
        auto& moments = static_cast<torch::optim::AdamParamState&>(*state);
        moments.exp_avg(one_more(moments.exp_avg()));
        moments.exp_avg_sq(one_more(moments.exp_avg_sq()));
        x = one_more(x.detach()).requires_grad_();
        optimizer.param_groups()[0].params()[0] = x;
        optimizer.state()[x.unsafeGetTensorImpl()] = std::move(state);
      }
      if (step.number() + 1 == stop_at) session.stop("enough");
    }
    std::string values;
    for (const double value : values_of(x.detach())) values += fmt::format(" {:.9g}", value);
    std::printf("came to%s\n", values.c_str());
    return session.finish();
  });
  std::set<std::string> all;
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK((rank.code == 0 || rank.code == 75));
    const auto at = rank.text.find("came to");
    REQUIRE(at != std::string::npos);
    all.insert(rank.text.substr(at, rank.text.find('\n', at) - at));
  }
  CHECK(all.size() == 1);
  return *all.begin();
}

TEST_CASE("parameters_that_grow_on_several_ranks_go_on_as_if_these_had_never_stopped", "[full]") {
  const ScratchFolder folder;
  const std::string undisturbed = grown(folder, "undisturbed", 0);
  for (const std::uint64_t stop_at : {2, 3, 5}) {
    const std::string run = fmt::format("stopped_at_{}", stop_at);
    (void)grown(folder, run, stop_at);
    CHECK(grown(folder, run, 0) == undisturbed);
  }
}

TEST_CASE("a_loop_with_batches_of_its_own_claims_nothing_about_samples_on_another_number_of_ranks", "[full]") {
  const ScratchFolder folder;
  const auto life = [&](int ranks, std::uint64_t count) {
    return ranks::run_sessions(ranks, [&]() -> int {
      auto session = start(folder.path(), "counted");
      double sum = 0;
      session.track("sum", sum);
      for ([[maybe_unused]] auto& step : session.steps({.count = count})) sum += 1;
      return session.finish();
    });
  };
  CHECK(life(2, 2)[0].code == 0);
  const auto ended = life(1, 3);
  INFO(ended[0].text);
  CHECK(ended[0].code == 0);
  CHECK(ended[0].text.find("2 ranks → 1") != std::string::npos);
  CHECK(ended[0].text.find("sample-exact") == std::string::npos);
}

TEST_CASE("what_cannot_be_logged_is_refused_on_the_rank_that_gave_it", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "logged");
    double sum = 0;
    session.track("sum", sum);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
      const nlohmann::json good = {{"loss", 1.0}}, bad = {{"step", 1.0}};  // a name that log writes itself
      try {
        session.log(session.rank() == 1 ? bad : good);
        if (session.rank() == 1) return 5;
      } catch (const Error&) {
        if (session.rank() == 0) return 6;
      }
    }
    return session.finish();
  });
  for (const auto& rank : ended) CHECK(rank.code == 0);
}

TEST_CASE("epochs_over_own_batches_need_as_many_on_each_rank", "[full]") {
  const ScratchFolder folder;
  for (const bool alike : {true, false}) {
    const auto ended = ranks::run_sessions(2, [&]() -> int {
      auto session = start(folder.path(), alike ? "alike" : "other");
      std::vector<double> batches(static_cast<std::size_t>(3 + (alike ? 0 : session.rank())), 1.0 + session.rank());
      double sum = 0;
      session.track("sum", sum);
      for (auto& epoch : session.epochs({.count = 2}, batches)) {
        for (const double batch : epoch) sum += batch;
      }
      return sum == 6.0 * (1 + session.rank()) ? session.finish() : 5;
    });
    for (const auto& rank : ended) {
      INFO(rank.text);
      CHECK((rank.code == 0) == alike);
      if (!alike) CHECK(rank.text.find("4 batches") != std::string::npos);
    }
  }
}

TEST_CASE("a_process_has_one_session_after_another", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(3, [&]() -> int {
    for (const char* run : {"first", "second", "third"}) {
      if (const int code = train_line(folder.path(), run, "cpu"); code != 0) return code;
    }
    auto session = start(folder.path(), "fourth");
    try {
      auto another = start(folder.path(), "fifth");
    } catch (const Error& error) {
      std::printf("%s\n", error.what());
    }
    return session.finish();
  });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    CHECK(rank.text.find("while another session of this process lives") != std::string::npos);
  }
}

TEST_CASE("a_loader_of_another_kind_that_gives_all_ranks_the_same_is_noticed", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(2, [&]() -> int {
    auto session = start(folder.path(), "foreign");
    torch::nn::Linear net(2, 1);
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    session.track("net", net).track("optimizer", optimizer);
    for (auto& step : session.steps({.count = 5})) {
      optimizer.zero_grad();
      net->forward(torch::full({4, 2}, static_cast<double>(step.number()))).sum().backward();
      session.average_gradients(net);
      optimizer.step();
    }
    return session.finish();
  });
  CHECK(ended[0].code == 0);
  INFO(ended[0].text);
  CHECK(ended[0].text.find("the very same gradients") != std::string::npos);
}

TEST_CASE("the_wait_for_a_slow_rank_is_said_once_by_one_rank", "[full][alone]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(4, [&]() -> int {
    ::setenv("HOLDFAST_SAY_WAITING", "1s", 1);
    auto session = start(folder.path(), "slow");
    session.barrier();
    if (session.rank() == 0) ::usleep(2500000);
    session.barrier();
    return session.finish();
  });
  std::size_t said = 0;
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    for (auto at = rank.text.find(" waits in "); at != std::string::npos; at = rank.text.find(" waits in ", at + 1))
      ++said;
  }
  CHECK(said == 1);
  CHECK(ended[1].text.find("rank 1 waits in barrier at session_ranks_test.cc:") != std::string::npos);
  CHECK(ended[1].text.find(" for rank 0 (now after barrier at session_ranks_test.cc:") != std::string::npos);
}

// For example a laptop that sleeps, or a virtual machine that is moved.
TEST_CASE("ranks_that_all_stood_still_go_on", "[full][alone]") {
  const ScratchFolder folder;
  const auto to_all = [](const std::vector<pid_t>& pids, int signal) {
    for (const pid_t pid : pids) ::kill(pid, signal);
  };
  const auto ended = ranks::run_sessions(
      3,
      [&]() -> int {
        auto session = start(folder.path(), "asleep");
        torch::nn::Linear net(2, 1);
        torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
        auto pipeline = session.pipeline(net, optimizer, {Ddp()});
        for (auto& step : session.steps({.count = 300})) {
          pipeline.step(step, [&] { return net->forward(torch::ones({2, 2})).square().mean(); });
          ::usleep(10000);
        }
        return session.finish();
      },
      std::chrono::seconds(60),
      [&](const std::vector<pid_t>& pids) {
        ::usleep(2000000);
        to_all(pids, SIGSTOP);
        ::usleep(5000000);
        to_all(pids, SIGCONT);
      });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_tensor_comes_back_on_each_ranks_own_gpu", "[gpu]") {
  if (!ranks::are_on_two_gpus()) return;
  const ScratchFolder folder;
  for (const int count : {1, 2}) {
    const auto ended = ranks::run_sessions(count, [&]() -> int {
      auto session = start(folder.path(), "owned", "never", "cuda");
      torch::Tensor tensor;
      if (count == 1) tensor = torch::ones({3}, at::TensorOptions(session.device()));
      session.track("tensor", tensor);
      session.restore();
      if (tensor.device() != session.device()) return 5;
      if (torch::empty({1}, torch::kCUDA).device() != session.device()) return 6;  // when no device is given
      for ([[maybe_unused]] auto& step : session.steps({.count = 1})) session.barrier();
      return session.finish();
    });
    for (const auto& rank : ended) {
      INFO(rank.text);
      CHECK(rank.code == 0);
    }
  }
}
