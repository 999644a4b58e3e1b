// The compiler's first error message for the likeliest mistakes with loaders, loops and batches: one sentence each,
// which states what is wrong and what to write.
#pragma once

#include <concepts>
#include <vector>

#include "holdfast/runtime/never.h"

// Declared, because the header of torch::data::Example includes all operators, which take seconds to compile.
namespace torch::data {
template <typename Data, typename Target>
struct Example;
}

namespace holdfast::detail {

template <class T>
struct NotALoader {
  static_assert(
      never<T>,
      "session.steps() and session.epochs() iterate over a holdfast::Loader, which can resume in the middle of an "
      "epoch: make one of the dataset, holdfast::Loader loader(dataset, {.batch_size = 64}); to iterate over "
      "batches that you hold, write session.epochs({.count = 10}, batches)");
  using Range = void;
};

// Without a member for other types, because clang 16 substitutes it before it checks the constructor's constraint.
template <class T>
struct NotLoaderOptions {};
template <std::integral T>
struct NotLoaderOptions<T> {
  static_assert(never<T>, "holdfast::Loader takes the batch size by name: Loader(dataset, {.batch_size = 64})");
  using Refused = int;
};

template <class Batches>
struct TemporaryBatches {
  static_assert(
      never<Batches>,
      "session.epochs({.count = n}, batches) needs batches that outlive the loop: give the batches a name first");
  using Range = void;
};

/// Replaces `data` and `target` of a batch that is a vector of samples; using them fails with this message.
template <class T>
struct NotStacked {
  constexpr NotStacked() = default;
  NotStacked(const NotStacked&) {
    static_assert(never<T>,
                  "this batch is a vector of samples: map the dataset, "
                  "dataset.map(torch::data::transforms::Stack<>()), so that a batch has data and target");
  }
};

template <class Batch>
constexpr bool is_vector_of_samples = false;
template <class Data, class Target>
constexpr bool is_vector_of_samples<std::vector<torch::data::Example<Data, Target>>> = true;

}  // namespace holdfast::detail
