#include "holdfast/runtime/data/loader.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/data/datasets/base.h>
#include <torch/data/datasets/map.h>
#include <torch/data/transforms/stack.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "catch.h"
#include "data/sample_order.h"
#include "holdfast/runtime/error.h"

using holdfast::Error;
using holdfast::Loader;
using holdfast::LoaderOptions;
using holdfast::SampleOrder;
using holdfast::storage::StatusCode;
using torch::data::Example;
using torch::data::transforms::Stack;

namespace {

std::vector<std::uint64_t> order_of(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch) {
  SampleOrder order(size, seed, epoch, true);
  std::vector<std::uint64_t> samples;
  for (std::uint64_t i = 0; i < size; ++i) samples.push_back(order[i]);
  return samples;
}

// A sample is its own index and two numbers of its generator; `before` runs first.
struct Numbers : torch::data::datasets::Dataset<Numbers> {
  explicit Numbers(std::size_t size, std::function<void(std::size_t)> before = {})
      : size_(size), before_(std::move(before)) {}
  Example<> get(std::size_t index) override {
    if (before_) before_(index);
    auto generator = holdfast::sample_generator(index);
    return {at::rand({2}, generator), at::scalar_tensor(static_cast<std::int64_t>(index), at::kLong)};
  }
  std::optional<std::size_t> size() const override { return size_; }
  std::size_t size_;
  std::function<void(std::size_t)> before_;
};

// Batches only, no get.
struct Columns : torch::data::datasets::BatchDataset<Columns, std::vector<std::size_t>> {
  std::vector<std::size_t> get_batch(c10::ArrayRef<std::size_t> indices) override {
    for (auto index : indices) {
      if (index == bad) throw std::runtime_error("row is torn");
    }
    if (indices.size() > 1 && together_bad) throw std::runtime_error("rows of unequal length");
    return indices.vec();
  }
  std::optional<std::size_t> size() const override { return 10; }
  std::size_t bad = 99;
  bool together_bad = false;
};

std::vector<std::int64_t> indices_of(const Example<>& batch) {
  return {batch.target.data_ptr<std::int64_t>(), batch.target.data_ptr<std::int64_t>() + batch.target.numel()};
}

// One epoch, or its rest.
template <class AnyLoader>
std::vector<std::int64_t> drain(AnyLoader& loader) {
  std::vector<std::int64_t> seen;
  while (auto batch = loader.next()) {
    const auto indices = indices_of(*batch);
    seen.insert(seen.end(), indices.begin(), indices.end());
  }
  return seen;
}

template <class Call>
Error error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return {StatusCode::ok, "nothing was thrown"};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

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

TEST_CASE("sample_order_never_changes") {
  CHECK(order_of(10, 42, 0) == std::vector<std::uint64_t>{2, 1, 9, 4, 6, 7, 8, 5, 3, 0});
  CHECK(order_of(10, 42, 1) == std::vector<std::uint64_t>{4, 0, 7, 9, 1, 3, 8, 6, 5, 2});
  SampleOrder images(60000, 42, 3, true);
  CHECK(std::vector{images[0], images[1], images[29999], images[59999]} ==
        std::vector<std::uint64_t>{48503, 18302, 36382, 32197});
  SampleOrder huge(std::uint64_t{3} << 40, 7, 0, true);
  CHECK(std::vector{huge[0], huge[1]} == std::vector<std::uint64_t>{1813149703582, 3019667883479});
}

TEST_CASE("sample_order_visits_every_sample_once") {
  for (std::uint64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1000, 4097, 60000}) {
    auto samples = order_of(size, 5, size);
    std::sort(samples.begin(), samples.end());
    std::vector<std::uint64_t> all(size);
    std::iota(all.begin(), all.end(), 0);
    CHECK(samples == all);
  }
}

TEST_CASE("sample_orders_are_as_even_as_shuffles") {
  // Every permutation of four and five samples, and every pair of first samples out of twelve, must be about equally
  // frequent: chi-square within five standard deviations of its mean, with consecutive seeds and epochs.
  const auto deviations = [](const auto& counts, double cells, double draws) {
    const double expected = draws / cells;
    double chi = (cells - static_cast<double>(counts.size())) * expected;
    for (const auto& [cell, count] : counts) chi += (count - expected) * (count - expected) / expected;
    return (chi - (cells - 1)) / std::sqrt(2 * (cells - 1));
  };
  for (auto [size, permutations] : {std::pair{4, 24}, {5, 120}}) {
    std::map<std::vector<std::uint64_t>, double> by_seed, by_epoch;
    for (int i = 0; i < 60000; ++i) {
      ++by_seed[order_of(size, i, 0)];
      ++by_epoch[order_of(size, 0, i)];
    }
    CHECK(std::abs(deviations(by_seed, permutations, 60000)) < 5);
    CHECK(std::abs(deviations(by_epoch, permutations, 60000)) < 5);
  }
  std::map<std::pair<std::uint64_t, std::uint64_t>, double> pairs;
  for (int i = 0; i < 60000; ++i) {
    SampleOrder order(12, 1, i, true);
    ++pairs[{order[0], order[1]}];
  }
  CHECK(std::abs(deviations(pairs, 12 * 11, 60000)) < 5);
}

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

TEST_CASE("drop_last_leaves_out_the_uneven_tail_only") {
  Loader dropping(Numbers(23).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(dropping.batches_per_epoch() == 4);
  CHECK(drain(dropping).size() == 20);
  CHECK(dropping.samples_seen() == 20);
  Loader even(Numbers(20).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(drain(even).size() == 20);
  Loader nearly_even(Numbers(24).map(Stack<>()), {.batch_size = 5, .drop_last = true});
  CHECK(drain(nearly_even).size() == 20);
}

TEST_CASE("a_loader_that_fetched_ahead_is_shared_out_from_the_next_batch_on") {
  Loader loader(Numbers(12).map(Stack<>()), {.batch_size = 4, .shuffle = false, .workers = 2});
  CHECK(loader.next()->data.size(0) == 4);
  loader.shard(1, 2);
  CHECK(loader.next()->target.equal(torch::tensor({6, 7})));
}

TEST_CASE("workers_change_nothing_but_the_time") {
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

TEST_CASE("what_is_left_of_an_epoch_is_counted_from_the_cursor") {
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
  const auto size_error = error_of([&] { larger.set_state(first.state()); });
  CHECK(size_error.code() == StatusCode::misfit);
  CHECK(contains(size_error.what(), "24 samples"));
  CHECK(contains(size_error.what(), "when it had 23"));
  CHECK(larger.state() == before);

  Loader unshuffled(Numbers(23).map(Stack<>()), {.batch_size = 5, .shuffle = false});
  CHECK(error_of([&] { unshuffled.set_state(first.state()); }).code() == StatusCode::misfit);
  drain(first);
  CHECK_NOTHROW(unshuffled.set_state(first.state()));  // between epochs nothing is lost

  auto newer = first.state();
  first.next();
  newer = first.state();
  newer["order"] = 2;
  CHECK(error_of([&] { first.set_state(newer); }).code() == StatusCode::misfit);
  CHECK(error_of([&] { first.set_state({{"epoch", 1}}); }).code() == StatusCode::misfit);
}

TEST_CASE("seeking_far_reads_nothing_before_the_position") {
  std::atomic<int> reads = 0;
  Loader loader(Numbers(std::size_t{1} << 40, [&](std::size_t) { ++reads; }).map(Stack<>()), {.batch_size = 8});
  loader.seek(3, (std::uint64_t{1} << 40) - 8);
  CHECK(loader.next());
  CHECK(reads == 8);
  CHECK_FALSE(loader.next());
  CHECK(loader.samples_seen() == std::uint64_t{4} << 40);
  CHECK(error_of([&] { loader.seek(0, (std::uint64_t{1} << 40) + 1); }).code() == StatusCode::invalid);
}

TEST_CASE("draw_goes_on_through_the_epochs") {
  Loader loader(Numbers(3).map(Stack<>()), {.batch_size = 2});
  std::map<std::int64_t, int> times;
  for (int i = 0; i < 8; ++i) {
    for (auto index : indices_of(loader.draw())) ++times[index];
  }
  CHECK(times == std::map<std::int64_t, int>{{0, 4}, {1, 4}, {2, 4}});
}

TEST_CASE("an_exception_in_get_reaches_the_loop_with_the_sample_and_the_next_call_tries_again") {
  for (int workers : {0, 3}) {
    std::atomic<bool> broken = true;
    Loader loader(Numbers(20,
                          [&](std::size_t index) {
                            if (index == 13 && broken) throw std::runtime_error("image 13 is truncated");
                          })
                      .map(Stack<>()),
                  {.batch_size = 5, .shuffle = false, .workers = workers});
    CHECK(loader.next());
    CHECK(loader.next());
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto error = error_of([&] { loader.next(); });
      CHECK(error.code() == StatusCode::unreadable);
      CHECK(contains(error.what(), "sample 13 "));
      CHECK(contains(error.what(), "image 13 is truncated"));
      CHECK(loader.cursor() == 10);
    }
    broken = false;
    CHECK(indices_of(*loader.next()) == std::vector<std::int64_t>{10, 11, 12, 13, 14});
  }
}

TEST_CASE("an_exception_in_get_batch_names_the_sample_or_says_that_none_fails_alone") {
  Columns torn;
  torn.bad = 6;
  Loader loader(torn, {.batch_size = 10});
  CHECK(contains(error_of([&] { loader.next(); }).what(), "sample 6 "));
  CHECK(contains(error_of([&] { loader.next(); }).what(), "row is torn"));

  Columns unequal;
  unequal.together_bad = true;
  Loader together(unequal, {.batch_size = 3, .shuffle = false});
  const auto error = error_of([&] { together.next(); });
  CHECK(contains(error.what(), "samples 0, 1, 2 "));
  CHECK(contains(error.what(), "rows of unequal length"));
}

TEST_CASE("a_libtorch_exception_arrives_without_its_backtrace") {
  Loader loader(Numbers(2, [](std::size_t) { TORCH_CHECK(false, "shapes differ"); }).map(Stack<>()));
  const std::string text = error_of([&] { loader.next(); }).what();
  CHECK(contains(text, "shapes differ"));
  CHECK_FALSE(contains(text, "Exception raised from"));
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

TEST_CASE("a_get_that_moves_the_default_generator_is_said_once") {
  const auto said = [](std::function<void(std::size_t)> in_get, int workers) {
    std::fflush(stderr);
    const int kept = ::dup(2);
    std::FILE* file = std::tmpfile();
    ::dup2(::fileno(file), 2);
    {
      Loader loader(Numbers(12, in_get).map(Stack<>()), {.batch_size = 3, .workers = workers});
      drain(loader);
    }
    std::fflush(stderr);
    ::dup2(kept, 2);
    ::close(kept);
    std::rewind(file);
    std::string text(4096, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file));
    std::fclose(file);
    return text;
  };
  for (int workers : {0, 2}) {
    const auto text = said([](std::size_t) { at::rand({1}); }, workers);
    CHECK(contains(text, "sample_generator"));
    CHECK(std::count(text.begin(), text.end(), '\n') == 1);
    CHECK(said({}, workers).empty());
  }
}

TEST_CASE("seeking_and_ending_with_slow_workers_leave_no_thread_behind") {
  const auto before = thread_count();
  for (int round = 0; round < 20; ++round) {
    Loader loader(Numbers(1000, [](std::size_t) { ::usleep(200); }).map(Stack<>()),
                  {.batch_size = 2, .shuffle = false, .workers = 4});
    for (std::uint64_t to : {500, 0, 998, 4}) {
      loader.seek(round, to);
      CHECK(indices_of(*loader.next()).front() == static_cast<std::int64_t>(to));
    }
  }
  CHECK(thread_count() == before);
}

TEST_CASE("loader_options_that_make_no_sense_are_refused_with_a_sentence") {
  const auto refused = [](std::size_t size, LoaderOptions options) {
    return error_of([&] { Loader loader(Numbers(size), options); });
  };
  CHECK(refused(0, {}).code() == StatusCode::invalid);
  CHECK(contains(refused(5, {.batch_size = 0}).what(), "batch_size"));
  CHECK(contains(refused(5, {.workers = -1}).what(), "workers"));
  CHECK(contains(refused(5, {.workers = 1, .prefetch = 0}).what(), "prefetch"));
  CHECK(contains(refused(5, {.batch_size = 6, .drop_last = true}).what(), "drop_last"));
}

TEST_CASE("the_default_seed_is_that_of_the_default_generator") {
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(77);
  CHECK(Loader(Numbers(5)).seed() == 77);
  CHECK(Loader(Numbers(5), {.seed = 8}).seed() == 8);
}

namespace {

// Batches of 64 MB, filled with the number of the first sample. They exist already, so reading takes no time.
struct Blocks : torch::data::datasets::BatchDataset<Blocks, Example<>> {
  Example<> get_batch(c10::ArrayRef<std::size_t> indices) override {
    return {blocks[indices.front()], at::scalar_tensor(static_cast<double>(indices.front()), at::kFloat)};
  }
  std::optional<std::size_t> size() const override { return blocks.size(); }
  std::vector<at::Tensor> blocks = [] {
    std::vector<at::Tensor> all;
    for (int i = 0; i < 6; ++i) all.push_back(at::full({16 << 20}, i, at::kFloat).pin_memory());
    return all;
  }();
};

// A program's own batch type: argument-dependent lookup finds how to move it to a device.
struct Pair {
  at::Tensor left, right;
  bool pinned = false;
};
Pair to_device(Pair pair, c10::Device device) { return {pair.left.to(device), pair.right.to(device), pair.pinned}; }
Pair pin_memory(Pair pair) { return {pair.left.pin_memory(), pair.right.pin_memory(), true}; }

struct Pairs : torch::data::datasets::BatchDataset<Pairs, Pair> {
  Pair get_batch(c10::ArrayRef<std::size_t> indices) override {
    const auto first = static_cast<double>(indices.front());
    return {at::full({3}, first), at::full({2}, -first)};
  }
  std::optional<std::size_t> size() const override { return 12; }
};

}  // namespace

TEST_CASE("batches_for_a_cpu_are_the_same_wherever_they_are_asked_for") {
  Loader plain(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 3});
  Loader moved(Numbers(23).map(Stack<>()), {.batch_size = 5, .seed = 3, .workers = 2});
  while (auto batch = plain.next()) {
    const auto other = moved.next_on(at::kCPU);
    REQUIRE(other);
    CHECK(batch->data.equal(other->data));
    CHECK_FALSE(other->data.is_pinned());
  }
  CHECK_FALSE(moved.next_on(at::kCPU));
}

TEST_CASE("batches_come_to_a_gpu_whole_while_it_is_busy", "[gpu]") {
  REQUIRE(at::globalContext().hasCUDA());
  const at::Device gpu(at::kCUDA, 0);
  const auto matrix = at::rand({4096, 4096}, gpu);
  const auto wrong_numbers = [](const Example<>& batch) { return (batch.data != batch.target).sum(); };
  for (const int workers : {0, 2}) {
    std::vector<at::Tensor> wrong;
    for (int epoch = 0; epoch < 3; ++epoch) {
      Loader loader(Blocks(), {.batch_size = 1, .shuffle = false, .workers = workers});
      auto product = matrix;
      // The host is far ahead of the device: batches are dropped, and their memory is allocated again, before they are
      // read.
      while (auto batch = loader.next_on(gpu)) {
        CHECK(batch->data.device() == gpu);
        for (int i = 0; i < 40; ++i) product = matrix.mm(product).clamp(0, 1);
        wrong.push_back(wrong_numbers(*batch));
      }
      // The device has no other work: batches are read as soon as they arrive, and not before.
      while (auto batch = loader.next_on(gpu)) {
        wrong.push_back(wrong_numbers(*batch));
        wrong.back().item<std::int64_t>();
      }
    }
    REQUIRE(wrong.size() == 36);
    CHECK(at::stack(wrong).sum().item<std::int64_t>() == 0);
  }
  Loader pairs(Pairs(), {.batch_size = 4, .shuffle = false, .workers = 1});
  while (auto pair = pairs.next_on(gpu)) {
    CHECK(pair->pinned);
    CHECK(pair->left.is_cuda());
    CHECK(pair->left[0].item<double>() == -pair->right[1].item<double>());
  }
}

namespace {

// A GPU without work of its own, in place of LibTorch's queries to the driver: so the moves of batches can be tested on
// any machine. It replaces the real GPU while it lives.
class StandInGpu final : public c10::impl::DeviceGuardImplInterface {
 public:
  StandInGpu() : former_(slot().exchange(this)) {}
  ~StandInGpu() override { slot() = former_; }
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {c10::kCUDA, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, getDevice()); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

 private:
  static std::atomic<const c10::impl::DeviceGuardImplInterface*>& slot() {
    return c10::impl::device_guard_impl_registry[static_cast<std::size_t>(c10::kCUDA)];
  }
  const c10::impl::DeviceGuardImplInterface* former_;
};

// A batch that knows where it is and cannot be assigned to. The first move of the batch of sample `heavy` fails.
struct Parcel {
  const std::size_t sample;
  std::unique_ptr<int> content = std::make_unique<int>(7);
  c10::DeviceType place = c10::kCPU;
};
std::optional<std::size_t> heavy;
Parcel to_device(Parcel parcel, c10::Device device) {
  if (heavy == parcel.sample) {
    heavy.reset();
    throw std::runtime_error("no room for sample " + std::to_string(parcel.sample));
  }
  parcel.place = device.type();
  return parcel;
}

struct Parcels : torch::data::datasets::BatchDataset<Parcels, Parcel> {
  Parcel get_batch(c10::ArrayRef<std::size_t> indices) override { return {indices.front()}; }
  std::optional<std::size_t> size() const override { return 9; }
};

// Waits until prefetching is done.
void wait_for_workers() { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }

}  // namespace

TEST_CASE("a_batch_that_does_not_get_to_its_device_is_given_out_by_the_next_call") {
  const StandInGpu gpu;
  for (const c10::DeviceType type : {c10::kCPU, c10::kCUDA}) {
    for (const int workers : {0, 2}) {
      const c10::Device device(type, 0);
      Loader loader(Parcels(), {.batch_size = 2, .shuffle = false, .workers = workers});
      heavy = 4;
      std::vector<std::size_t> came, failed;
      for (int calls = 0; calls < 7; ++calls) {
        const auto cursor = loader.cursor();
        try {
          const auto parcel = loader.next_on(device);
          if (!parcel) break;
          CHECK(parcel->place == type);
          CHECK(parcel->content);
          CHECK(parcel->sample == cursor);
          came.push_back(parcel->sample);
        } catch (const std::runtime_error& error) {
          CHECK(std::string(error.what()) == "no room for sample 4");
          CHECK(loader.cursor() == cursor);
          CHECK(loader.samples_seen() == cursor);
          failed.push_back(cursor);
        }
        wait_for_workers();
      }
      CHECK(came == std::vector<std::size_t>{0, 2, 4, 6, 8});
      // A loader that prefetches tries again when the batch is due, and need not report that the first attempt failed.
      const bool ahead = type == c10::kCUDA && workers > 0;
      CHECK(((ahead && failed.empty()) || failed == std::vector<std::size_t>{4}));
      heavy.reset();
    }
  }
}

TEST_CASE("a_batch_on_its_way_to_a_gpu_is_not_given_out_as_one_for_the_cpu") {
  const StandInGpu gpu;
  Loader loader(Parcels(), {.batch_size = 2, .shuffle = false, .workers = 2});
  std::vector<std::size_t> came;
  const auto take = [&](c10::DeviceType expected, const std::optional<Parcel>& parcel) {
    REQUIRE(parcel);
    CHECK(parcel->place == expected);
    came.push_back(parcel->sample);
    wait_for_workers();
  };
  take(c10::kCUDA, loader.next_on({c10::kCUDA, 0}));
  take(c10::kCPU, loader.next());
  take(c10::kCUDA, loader.next_on({c10::kCUDA, 0}));
  take(c10::kCPU, loader.next_on(c10::kCPU));
  take(c10::kCUDA, loader.next_on({c10::kCUDA, 0}));
  CHECK(came == std::vector<std::size_t>{0, 2, 4, 6, 8});
  CHECK_FALSE(loader.next());
}

namespace {

// For data without labels: the target is undefined.
struct Unlabelled : torch::data::datasets::BatchDataset<Unlabelled, Example<>> {
  Example<> get_batch(c10::ArrayRef<std::size_t> indices) override {
    return {at::full({2}, static_cast<double>(indices.front())), at::Tensor()};
  }
  std::optional<std::size_t> size() const override { return 3; }
};

}  // namespace

TEST_CASE("a_batch_without_a_target_comes_to_a_device_too") {
  Loader loader(Unlabelled(), {.batch_size = 1});
  const auto batch = loader.next_on(at::kCPU);
  REQUIRE(batch);
  CHECK(batch->data.defined());
  CHECK_FALSE(batch->target.defined());
}
