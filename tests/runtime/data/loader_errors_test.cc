// Exceptions of a dataset, options that a loader refuses, and randomness that no resume can repeat.
#include <torch/data/datasets/map.h>
#include <torch/data/transforms/stack.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.h"
#include "data/indexed_datasets.h"

using holdfast::Loader;
using holdfast::LoaderOptions;
using torch::data::transforms::Stack;
using namespace indexed_datasets;

TEST_CASE("an_exception_in_get_names_the_sample_and_the_next_call_retries") {
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
      const auto error = refusal_of([&] { loader.next(); });
      CHECK(error.code() == StatusCode::unreadable);
      CHECK(contains(error.what(), "sample 13 "));
      CHECK(contains(error.what(), "image 13 is truncated"));
      CHECK(loader.cursor() == 10);
    }
    broken = false;
    CHECK(indices_of(*loader.next()) == std::vector<std::int64_t>{10, 11, 12, 13, 14});
  }
}

TEST_CASE("an_exception_in_get_batch_names_the_sample_or_the_whole_batch") {
  Columns torn;
  torn.bad = 6;
  Loader loader(torn, {.batch_size = 10});
  CHECK(contains(refusal_of([&] { loader.next(); }).what(), "sample 6 "));
  CHECK(contains(refusal_of([&] { loader.next(); }).what(), "row is torn"));

  Columns unequal;
  unequal.together_bad = true;
  Loader together(unequal, {.batch_size = 3, .shuffle = false});
  const auto error = refusal_of([&] { together.next(); });
  CHECK(contains(error.what(), "samples 0, 1, 2 "));
  CHECK(contains(error.what(), "rows of unequal length"));
}

TEST_CASE("a_libtorch_exception_arrives_without_its_backtrace") {
  Loader loader(Numbers(2, [](std::size_t) { TORCH_CHECK(false, "shapes differ"); }).map(Stack<>()));
  const std::string text = refusal_of([&] { loader.next(); }).what();
  CHECK(contains(text, "shapes differ"));
  CHECK_FALSE(contains(text, "Exception raised from"));
}

TEST_CASE("a_get_that_uses_the_default_generator_is_reported_once") {
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

TEST_CASE("invalid_loader_options_are_refused_by_name") {
  const auto refused = [](std::size_t size, LoaderOptions options) {
    return refusal_of([&] { Loader loader(Numbers(size), options); });
  };
  CHECK(refused(0, {}).code() == StatusCode::invalid);
  CHECK(contains(refused(5, {.batch_size = 0}).what(), "batch_size"));
  CHECK(contains(refused(5, {.workers = -1}).what(), "workers"));
  CHECK(contains(refused(5, {.workers = 1, .prefetch = 0}).what(), "prefetch"));
  CHECK(contains(refused(5, {.batch_size = 6, .drop_last = true}).what(), "drop_last"));
}
