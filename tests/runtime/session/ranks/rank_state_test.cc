// The state of several ranks, saved and restored: what is the same on all of them, and what each one, or only one, has.
#include <fmt/format.h>
#include <torch/torch.h>

#include <cstdio>
#include <random>
#include <set>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "message_parts.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

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

TEST_CASE("rank_local_state_is_restored_on_its_rank", "[full]") {
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

TEST_CASE("sharded_state_is_complete_on_any_number_of_ranks", "[full]") {
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

TEST_CASE("state_tracked_on_one_rank_only_needs_allow_unexpected", "[full]") {
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
  CHECK(has_line(refused[0].text, {"own@1", "in the checkpoint", "not in the program"}));
  for (const auto& rank : ranks::run_sessions(2, [&] { return program(true, {"own*"}); })) {
    INFO(rank.text);
    CHECK(rank.code == 0);
    CHECK(rank.text.find("wrong") == std::string::npos);
  }
}

TEST_CASE("a_tensor_is_restored_on_each_ranks_own_gpu", "[gpu]") {
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
