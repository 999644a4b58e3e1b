// Containers, and types that name their members, are restored to the bit, whatever they are made of.
#include <torch/torch.h>

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstring>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <stack>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

#include "tracked_run.h"

using holdfast::RunState;
using holdfast::State;

namespace {

/// A run whose newest version holds `x` under `name`.
template <class T>
TrackedRun saved_as(const char* name, T& x) {
  TrackedRun run;
  RunState saved;
  saved.track(name, x);
  run.save(saved);
  return run;
}

/// Saves `from` and restores it into `to`.
template <class T>
void carry_object(T& from, T& to) {
  const TrackedRun run = saved_as("x", from);
  RunState loaded;
  loaded.track("x", to);
  loaded.restore(run.newest());
}

template <class T>
T carried(T from) {
  T to{};
  carry_object(from, to);
  return to;
}

template <class T>
bool comes_back(const T& x) {
  return carried(x) == x;
}

enum class Phase : std::uint8_t { warm_up, main };

struct Entry {
  std::array<float, 3> seen{};
  std::vector<double> rewards;
  std::int64_t action = 0;
  bool is_done = false;
  Phase phase = Phase::warm_up;
  std::string text;
  std::optional<double> best;
  std::vector<std::vector<int>> paths;
  std::variant<int, std::string> label;
  std::array<std::array<std::int16_t, 2>, 2> grid{};

  template <class Archive>
  void holdfast_state(Archive& a) {
    a("seen", seen)("rewards", rewards)("action", action)("is_done", is_done)("phase", phase)("text", text);
    a("best", best)("paths", paths)("label", label)("grid", grid);
  }
  bool operator==(const Entry&) const = default;
};

std::vector<Entry> entries(int count) {
  std::vector<Entry> all;
  for (int i = 0; i < count; ++i) {
    Entry entry;
    entry.seen = {1.5F * static_cast<float>(i), -0.0F, 3};
    entry.action = i * i;
    entry.is_done = i % 2 == 0;
    entry.phase = i % 3 ? Phase::main : Phase::warm_up;
    for (int k = 0; k < i % 4; ++k) entry.rewards.push_back(i / (k + 3.0));
    entry.text = std::string(static_cast<std::size_t>(i % 5), 'a');
    if (i % 3 == 0) entry.best = 1.0 / (i + 1);
    entry.paths.assign(static_cast<std::size_t>(i % 3), {i, i + 1});
    if (i % 2) entry.label = "odd";
    entry.grid[1][0] = static_cast<std::int16_t>(i);
    all.push_back(entry);
  }
  return all;
}

}  // namespace

TEST_CASE("containers_of_every_kind_and_length_are_restored") {
  for (const int count : {0, 1, 3, 500}) {
    INFO(count);
    std::vector<double> doubles;
    std::vector<float> floats;
    std::vector<bool> flags;
    std::deque<std::uint8_t> bytes;
    std::list<std::string> texts;
    std::set<int> set;
    std::map<std::string, std::vector<int>> map;
    std::map<int, std::pair<double, std::string>> numbered;
    std::vector<std::array<std::array<double, 2>, 3>> grids;
    std::queue<int> queue;
    std::stack<double> stack;
    std::priority_queue<int> heap;
    std::vector<std::complex<float>> waves;
    std::vector<std::tuple<int, std::string, std::vector<std::string>>> rows;
    std::multimap<int, int> several;
    for (int i = 0; i < count; ++i) {
      doubles.push_back(1.0 / (i + 1));
      floats.push_back(1.0F / static_cast<float>(i + 1));
      flags.push_back(i % 3 == 0);
      bytes.push_back(static_cast<std::uint8_t>(i));
      texts.push_back(std::string(static_cast<std::size_t>(i % 4), 'x') + "\xff");  // not UTF-8
      set.insert(i * 7 % 501);
      map["key" + std::to_string(i)] = {i, 2 * i};
      numbered[i] = {i / 3.0, std::to_string(i)};
      grids.push_back({{{1.0 * i, 2}, {3, 4}, {5, 0.5 * i}}});
      queue.push(i);
      stack.push(i / 7.0);
      heap.push(i * 37 % 101);
      waves.emplace_back(static_cast<float>(i), -0.5F);
      rows.emplace_back(i, "row", std::vector<std::string>(static_cast<std::size_t>(i % 3), "cell"));
      several.emplace(i % 5, i);
    }
    CHECK(comes_back(doubles));
    CHECK(comes_back(floats));
    CHECK(comes_back(flags));
    CHECK(comes_back(bytes));
    CHECK(comes_back(texts));
    CHECK(comes_back(set));
    CHECK(comes_back(map));
    CHECK(comes_back(numbered));
    CHECK(comes_back(grids));
    CHECK(comes_back(queue));
    CHECK(comes_back(stack));
    CHECK(comes_back(waves));
    CHECK(comes_back(rows));
    CHECK(comes_back(several));
    auto same_heap = carried(heap);
    CHECK(same_heap.size() == heap.size());
    while (!heap.empty() && !same_heap.empty()) {
      CHECK(same_heap.top() == heap.top());
      heap.pop(), same_heap.pop();
    }
    const auto all = entries(count);
    CHECK(comes_back(all));
    const std::deque<Entry> queued(all.begin(), all.end());
    CHECK(comes_back(queued));
    std::map<std::string, Entry> named;
    for (const Entry& entry : all) named["entry" + std::to_string(entry.action)] = entry;
    CHECK(comes_back(named));
  }
}

TEST_CASE("a_large_text_leaves_the_manifest") {
  std::string text(1 << 20, 'x');
  holdfast::RunState state;
  state.track("text", text);
  TrackedRun run;
  run.save(state);
  CHECK(holdfast::storage::encode(run.newest().manifest()).size() < (1 << 16));
  text.clear();
  state.restore(run.newest());
  CHECK(text == std::string(1 << 20, 'x'));
}

TEST_CASE("single_objects_of_every_kind_are_restored") {
  CHECK(comes_back(std::optional<double>(0.1)));
  CHECK(comes_back(std::optional<double>()));
  CHECK(comes_back(std::variant<int, std::string, double>("text")));
  CHECK(comes_back(std::complex<double>(1, -2)));
  CHECK(comes_back(Phase::main));
  CHECK(comes_back(std::bitset<70>(0x8000000000000001U)));
  CHECK(comes_back(std::chrono::milliseconds(42)));
  const auto now = std::chrono::system_clock::now();
  CHECK(comes_back(now));
  CHECK(comes_back(std::tuple(1, 2.5, std::string("three"))));
  CHECK(carried(std::string("plain")) == "plain");
  CHECK(carried(std::string("not UTF-8: \xfe")) == "not UTF-8: \xfe");
  CHECK(comes_back(std::string(100000, 'l')));
  CHECK(comes_back(nlohmann::json{{"columns", 1}, {"arrays", 2}}));
  CHECK(carried(nlohmann::json{{"values", 1}, {"tensors", 2}, {"undefined", 3}}).at("tensors") == 2);
  nlohmann::json large;
  for (int i = 0; i < 3000; ++i) large["key" + std::to_string(i)] = i / 3.0;
  CHECK(comes_back(large));

  std::atomic<int> from = 7, to = 0;
  carry_object(from, to);
  CHECK(to == 7);
  float weights[2][3] = {{1, 2, 3}, {4, 5, 6}}, others[2][3] = {};
  carry_object(weights, others);
  CHECK(std::memcmp(weights, others, sizeof weights) == 0);
  auto owned = std::make_unique<Entry>(entries(5).back()), same = std::unique_ptr<Entry>();
  carry_object(owned, same);
  REQUIRE(same);
  CHECK(*same == *owned);
  auto shared = std::make_shared<std::vector<double>>(2, 0.5), none = std::make_shared<std::vector<double>>();
  carry_object(shared, none);
  CHECK(*none == *shared);
  shared.reset();
  carry_object(shared, none);
  CHECK_FALSE(none);
  std::vector<std::mt19937> engines{std::mt19937(1), std::mt19937(2)}, loaded;
  engines[1].discard(1000);
  carry_object(engines, loaded);
  CHECK(loaded == engines);
  std::normal_distribution<> normal(1, 2), other;
  std::mt19937 engine(3);
  (void)normal(engine);  // the distribution keeps a second number
  carry_object(normal, other);
  CHECK(other == normal);
}

TEST_CASE("a_hash_map_is_iterated_in_the_same_order") {
  std::unordered_map<std::string, double> map, other;
  for (int i = 0; i < 1000; ++i) map["key" + std::to_string(i * 7919 % 1000)] = i;
  for (int i = 0; i < 500; ++i) map.erase("key" + std::to_string(2 * i));
  carry_object(map, other);
  CHECK(std::vector<std::pair<std::string, double>>(map.begin(), map.end()) ==
        std::vector<std::pair<std::string, double>>(other.begin(), other.end()));
  std::unordered_map<int, int> small{{1, 2}, {30, 4}, {5, 6}}, same;
  carry_object(small, same);
  CHECK(std::vector<std::pair<int, int>>(small.begin(), small.end()) ==
        std::vector<std::pair<int, int>>(same.begin(), same.end()));
}

TEST_CASE("the_bits_of_numbers_in_containers_are_kept") {
  const auto payload = std::bit_cast<float>(0x7fc12345U);
  const auto back = carried(std::vector<float>(100, payload));
  CHECK(std::bit_cast<std::uint32_t>(back.at(99)) == 0x7fc12345U);
  CHECK(std::signbit(carried(std::vector<double>(100, -0.0)).at(50)));
  CHECK(std::isinf(carried(std::vector<double>{1, std::numeric_limits<double>::infinity()}).at(1)));
}

TEST_CASE("tensors_in_containers_take_the_shapes_that_were_saved") {
  std::vector<torch::Tensor> alike, ragged, mixed, none;
  for (int i = 0; i < 20; ++i) {
    alike.push_back(torch::randn({2, 3}));
    ragged.push_back(torch::randn({i, 2}));
    mixed.push_back(i % 3 == 0 ? torch::Tensor() : torch::arange(i));
  }
  for (const auto& from : {alike, ragged, mixed, none}) {
    const auto to = carried(from);
    REQUIRE(to.size() == from.size());
    for (std::size_t i = 0; i < to.size(); ++i) {
      REQUIRE(to[i].defined() == from[i].defined());
      if (!to[i].defined()) continue;
      CHECK(to[i].sizes() == from[i].sizes());
      CHECK(to[i].equal(from[i]));
      CHECK(to[i].storage().nbytes() == to[i].nbytes());  // not a view of all of them
    }
  }
}

TEST_CASE("each_member_of_many_objects_is_one_tensor") {
  auto all = entries(1000);
  RunState state;
  state.track("replay", all);
  const auto captured = state.capture();
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& tensor : captured.tensors) shapes[tensor.name] = tensor.shape;
  CHECK(shapes.at("replay.seen") == std::vector<std::int64_t>{1000, 3});
  CHECK(shapes.at("replay.action") == std::vector<std::int64_t>{1000});
  CHECK(shapes.at("replay.rewards:lengths") == std::vector<std::int64_t>{1000});
  CHECK(captured.tensors.size() < 25);
  CHECK(captured.values.dump().size() < 2000);
}

TEST_CASE("containers_saved_as_json_are_still_loaded") {
  std::vector<double> doubles{1, 2.5};
  nlohmann::json as_before = doubles;
  const TrackedRun run = saved_as("x", as_before);
  std::vector<double> loaded;
  RunState state;
  state.track("x", loaded);
  state.restore(run.newest());
  CHECK(loaded == doubles);
}

TEST_CASE("a_container_of_another_type_is_refused_by_name") {
  std::vector<double> doubles(1000, 0.5);
  const TrackedRun run = saved_as("losses", doubles);
  std::vector<int> integers;
  RunState state;
  state.track("losses", integers);
  CHECK_THAT(error_of([&] { state.restore(run.newest()); }),
             ContainsSubstring("losses") && ContainsSubstring("Double in the checkpoint and Int in the program"));
  std::vector<Entry> objects;
  RunState other;
  other.track("losses", objects);
  CHECK_THAT(error_of([&] { other.restore(run.newest()); }),
             ContainsSubstring("'losses'") && ContainsSubstring("no column 'seen'"));
}

TEST_CASE("integers_may_be_loaded_into_wider_types_and_are_refused_if_out_of_range") {
  std::vector<int> numbers(1000, 300);
  const TrackedRun run = saved_as("x", numbers);
  std::vector<std::int64_t> wider;
  RunState state;
  state.track("x", wider);
  state.restore(run.newest());
  CHECK(wider == std::vector<std::int64_t>(1000, 300));
  std::vector<std::uint8_t> narrower;
  RunState other;
  other.track("x", narrower);
  CHECK_THAT(error_of([&] { other.restore(run.newest()); }), ContainsSubstring("cannot hold all of its numbers"));
}
