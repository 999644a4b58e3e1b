// Which samples a loader gives in which order, and where it resumes.
#include "holdfast/runtime/data/loader.h"

#include <torch/data/datasets/map.h>
#include <torch/data/transforms/stack.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "catch.h"
#include "data/indexed_datasets.h"

using holdfast::Loader;
using torch::data::transforms::Stack;
using namespace indexed_datasets;

namespace {

// The number of threads of this process, from the kernel.
std::size_t thread_count() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  std::size_t count = 0;
  while (std::fgets(line, sizeof line, file)) std::sscanf(line, "Threads: %zu", &count);
  std::fclose(file);
  return count;
}

}  // namespace

TEST_CASE("loader_gives_every_sample_once_per_epoch_in_another_order_each_epoch") {
  Loader loader(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 3});
  CHECK(loader.batches_per_epoch() == 5);
  const auto first = drain(loader);
  CHECK(loader.epoch() == 1);
  const auto second = drain(loader);
  CHECK(first != second);
  CHECK(std::set(first.begin(), first.end()).size() == 23);
  CHECK(std::set(second.begin(), second.end()).size() == 23);
  CHECK(loader.samples_seen() == 46);
}

TEST_CASE("loader_takes_datasets_mapped_or_not_and_batch_datasets") {
  Loader plain(Numbers(4), {.batch_size = 3, .shuffle = false});
  std::vector<Example<>> examples = *plain.next();
  CHECK(examples.size() == 3);
  CHECK(examples[2].target.item<std::int64_t>() == 2);
  Loader batches(Columns(), {.batch_size = 4, .shuffle = false});
  CHECK(*batches.next() == std::vector<std::size_t>{0, 1, 2, 3});
  std::size_t count = 0;
  for (auto& batch : batches) count += batch.size();
  CHECK(count == 6);
  CHECK(batches.epoch() == 1);
}

TEST_CASE("drop_last_drops_only_an_incomplete_last_batch") {
  Loader dropping(Numbers(23).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(dropping.batches_per_epoch() == 4);
  CHECK(drain(dropping).size() == 20);
  CHECK(dropping.samples_seen() == 20);
  Loader even(Numbers(20).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(drain(even).size() == 20);
  Loader nearly_even(Numbers(24).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(drain(nearly_even).size() == 20);
}

TEST_CASE("a_loader_that_prefetched_is_sharded_from_the_next_batch_on") {
  Loader loader(Numbers(12).map(Stack<>()), {.batch_size = 4, .shuffle = false, .workers = 2});
  CHECK(loader.next()->data.size(0) == 4);
  loader.shard(1, 2);
  CHECK(loader.next()->target.equal(torch::tensor({6, 7})));
}

TEST_CASE("workers_do_not_change_the_batches") {
  const auto run = [](int workers, int prefetch) {
    // Uneven reading times, so that batches finish out of order.
    Loader loader(Numbers(101, [](std::size_t index) { ::usleep(index % 7 * 50); }).map(Stack<>()),
                  {.batch_size = 4, .seed = 9, .workers = workers, .prefetch = prefetch});
    std::vector<std::pair<std::vector<std::int64_t>, std::vector<float>>> batches;
    for (int epoch = 0; epoch < 2; ++epoch) {
      while (auto batch = loader.next()) {
        const float* data = batch->data.template data_ptr<float>();
        batches.push_back({indices_of(*batch), {data, data + batch->data.numel()}});
      }
    }
    return batches;
  };
  const auto alone = run(0, 2);
  CHECK(run(1, 1) == alone);
  CHECK(run(2, 2) == alone);
  CHECK(run(5, 3) == alone);
}

TEST_CASE("prefetching_never_moves_the_cursor") {
  std::atomic<int> reads = 0;
  Loader loader(Numbers(100, [&](std::size_t) { ++reads; }).map(Stack<>()), {.batch_size = 5, .workers = 2});
  loader.next();
  while (reads < 20) std::this_thread::yield();
  CHECK(loader.cursor() == 5);
  CHECK(loader.samples_seen() == 5);
  CHECK(loader.batch_samples() == 5);
  CHECK(loader.state().at("cursor") == 5);
}

TEST_CASE("state_resumes_at_the_next_sample_from_any_position") {
  for (int workers : {0, 2}) {
    Loader whole(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 11});
    std::vector<std::int64_t> uninterrupted = drain(whole);
    const auto next_epoch = drain(whole);
    uninterrupted.insert(uninterrupted.end(), next_epoch.begin(), next_epoch.end());
    for (std::size_t batches = 0; batches <= 5; ++batches) {
      Loader first(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 11, .workers = workers});
      std::vector<std::int64_t> seen;
      for (std::size_t i = 0; i < batches; ++i) {
        const auto indices = indices_of(*first.next());
        seen.insert(seen.end(), indices.begin(), indices.end());
      }
      const auto text = first.state().dump();
      // The second program has no seed of its own: the run's seed is restored with the state.
      Loader second(Numbers(23).map(Stack<>()), {.batch_size = 5, .workers = workers});
      second.next();
      second.set_state(nlohmann::json::parse(text));
      CHECK(second.samples_seen() == seen.size());
      for (int epoch = 0; epoch < 2; ++epoch) {
        const auto rest = drain(second);
        seen.insert(seen.end(), rest.begin(), rest.end());
      }
      CHECK(seen == uninterrupted);
    }
  }
}

TEST_CASE("another_batch_size_in_the_middle_of_an_epoch_still_gives_every_sample_once") {
  Loader first(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 1});
  auto seen = indices_of(*first.next());
  Loader second(Numbers(23).map(Stack<>()), {.batch_size = 7});
  second.set_state(first.state());
  const auto rest = drain(second);
  seen.insert(seen.end(), rest.begin(), rest.end());
  CHECK(seen.size() == 23);
  CHECK(std::set(seen.begin(), seen.end()).size() == 23);
}

TEST_CASE("the_rest_of_an_epoch_is_counted_from_the_cursor") {
  Loader first(Numbers(50).map(Stack<>()), {.batch_size = 5, .seed = 1, .drop_last = true});
  first.next();
  first.next();
  Loader second(Numbers(50).map(Stack<>()), {.batch_size = 8, .seed = 1, .drop_last = true});
  second.set_state(first.state());
  std::uint64_t left = second.batches_left();
  CHECK(left == 5);  // of 8 samples each, from sample 10 on
  CHECK(second.samples_left() == 40);
  for (; second.next(); --left) CHECK(second.batches_left() == left - 1);
  CHECK(left == 0);
}

TEST_CASE("state_of_another_dataset_or_order_is_refused_and_changes_nothing") {
  Loader first(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 1});
  first.next();
  Loader larger(Numbers(24).map(Stack<>()), {.batch_size = 5, .seed = 2});
  const auto before = larger.state();
  const auto size_error = refusal_of([&] { larger.set_state(first.state()); });
  CHECK(size_error.code() == StatusCode::misfit);
  CHECK(contains(size_error.what(), "24 samples"));
  CHECK(contains(size_error.what(), "when it had 23"));
  CHECK(larger.state() == before);

  Loader unshuffled(Numbers(23).map(Stack<>()), {.batch_size = 5, .shuffle = false});
  CHECK(refusal_of([&] { unshuffled.set_state(first.state()); }).code() == StatusCode::misfit);
  drain(first);
  CHECK_NOTHROW(unshuffled.set_state(first.state()));  // between epochs nothing is lost

  auto newer = first.state();
  first.next();
  newer = first.state();
  newer["order"] = 2;
  CHECK(refusal_of([&] { first.set_state(newer); }).code() == StatusCode::misfit);
  CHECK(refusal_of([&] { first.set_state({{"epoch", 1}}); }).code() == StatusCode::misfit);
}

TEST_CASE("seeking_far_reads_nothing_before_the_position") {
  std::atomic<int> reads = 0;
  Loader loader(Numbers(std::size_t{1} << 40, [&](std::size_t) { ++reads; }).map(Stack<>()), {.batch_size = 8});
  loader.seek(3, (std::uint64_t{1} << 40) - 8);
  CHECK(loader.next());
  CHECK(reads == 8);
  CHECK_FALSE(loader.next());
  CHECK(loader.samples_seen() == std::uint64_t{4} << 40);
  CHECK(refusal_of([&] { loader.seek(0, (std::uint64_t{1} << 40) + 1); }).code() == StatusCode::invalid);
}

TEST_CASE("draw_continues_across_epochs") {
  Loader loader(Numbers(3).map(Stack<>()), {.batch_size = 2});
  std::map<std::int64_t, int> times;
  for (int i = 0; i < 8; ++i) {
    for (auto index : indices_of(loader.draw())) ++times[index];
  }
  CHECK(times == std::map<std::int64_t, int>{{0, 4}, {1, 4}, {2, 4}});
}

TEST_CASE("sample_generator_depends_on_seed_epoch_and_index_alone") {
  const auto draws = [](std::uint64_t seed, std::uint64_t epoch) {
    Loader loader(Numbers(6).map(Stack<>()), {.batch_size = 6, .shuffle = false, .seed = seed});
    loader.start_epoch(epoch);
    const auto data = loader.next()->data;
    return std::vector<float>(data.data_ptr<float>(), data.data_ptr<float>() + data.numel());
  };
  CHECK(draws(1, 2) == draws(1, 2));
  CHECK(draws(1, 2) != draws(2, 2));
  CHECK(draws(1, 2) != draws(1, 3));
  const auto values = draws(1, 2);
  CHECK(std::set(values.begin(), values.end()).size() == values.size());

  // A sample made of two others holds both generators at once.
  auto one = holdfast::sample_generator(1);
  auto two = holdfast::sample_generator(2);
  const auto first = at::rand({2}, one);
  CHECK_FALSE(first.equal(at::rand({2}, two)));
  CHECK(first.equal(at::rand({2}, holdfast::sample_generator(1))));
}

TEST_CASE("seeking_and_destroying_a_loader_with_slow_workers_leaks_no_thread") {
  const auto before = thread_count();
  for (int round = 0; round < 20; ++round) {
    Loader loader(Numbers(1000, [](std::size_t) { ::usleep(200); }).map(Stack<>()),
                  {.batch_size = 2, .shuffle = false, .workers = 4});
    for (std::uint64_t to : {500, 0, 998, 4}) {
      loader.seek(round, to);
      CHECK(indices_of(*loader.next()).front() == static_cast<std::int64_t>(to));
    }
  }
  // The kernel counts a thread for a moment after it was joined.
  for (int i = 0; i < 100 && thread_count() != before; ++i) ::usleep(10000);
  CHECK(thread_count() == before);
}

TEST_CASE("the_default_seed_is_that_of_the_default_generator") {
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(77);
  CHECK(Loader(Numbers(5)).seed() == 77);
  CHECK(Loader(Numbers(5), {.seed = 8}).seed() == 8);
}
