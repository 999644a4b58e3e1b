// What the compiler says first to the likeliest mistakes: one sentence each, what is wrong and what to write.
#pragma once

#include <torch/data/example.h>

#include <concepts>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "holdfast/runtime/state_forms.h"

namespace holdfast {

template <class>
constexpr bool never = false;

/// Whether what was given as `T&&` outlives the call: a variable, or a module that is handed over.
template <class T>
constexpr bool is_kept = std::is_lvalue_reference_v<T>;
template <std::derived_from<torch::nn::Module> M>
constexpr bool is_kept<std::shared_ptr<M>> = true;

/// torch::data's loaders.
template <class T>
concept IsTorchDataLoader = requires(T& loader) {
  loader.join();
  loader.options();
  loader.begin();
};
template <class T>
concept HoldsTorchDataLoader = requires(T& pointer) {
  requires IsTorchDataLoader<std::remove_cvref_t<decltype(*pointer)>>;
};

/// A holder of, or a pointer to, a module or optimizer with a holdfast_state() of its own.
template <class T>
concept PointsToMembers = IsPart<T> && requires(T& pointer) {
  requires HasMembers<std::remove_cvref_t<decltype(*pointer)>>;
};

/// Whether objects of type T can be tracked. Where they cannot, compiling it says why.
template <class T>
constexpr bool is_trackable() {
  if constexpr (PointsToMembers<T>) {
    static_assert(
        never<T>,
        "track() takes this module's parameters and buffers through its holder or pointer, and would leave its "
        "holdfast_state() out: track what that names on its own, or in the class that owns the module");
    return false;
  } else if constexpr (IsPart<T>) {
    return true;
  } else if constexpr (std::is_const_v<T>) {
    static_assert(never<T>,
                  "track() needs a variable that a resume may change, and this one is const: leave the const away, or "
                  "do not track what never changes");
    return false;
  } else if constexpr (std::same_as<T, long double>) {
    static_assert(never<T>, "track() cannot save a long double, which no other kind of machine reads: use a double");
    return false;
  } else if constexpr (std::same_as<T, std::random_device>) {
    static_assert(never<T>,
                  "track() cannot save a std::random_device, which has no state: track the engine that it seeds, such "
                  "as a std::mt19937");
    return false;
  } else if constexpr (IsTorchDataLoader<T> || HoldsTorchDataLoader<T>) {
    static_assert(never<T>,
                  "track() cannot save the position of a torch::data loader: make a holdfast::Loader of the dataset, "
                  "and loop over session.steps(loader, {.epochs = 10})");
    return false;
  } else if constexpr (std::is_pointer_v<T>) {
    static_assert(never<T>, "track() does not take a plain pointer: track the object, a shared_ptr or a unique_ptr");
    return false;
  } else {
    static_assert(IsSupported<T>,
                  "track() cannot save this type: name its members in template <class Archive> void "
                  "holdfast_state(Archive& a) { a(\"member\", member); }, or track them one by one; a lambda has none");
    return IsSupported<T>;
  }
}

template <class T>
struct NotALoader {
  static_assert(
      never<T>,
      "session.steps() and session.epochs() go over a holdfast::Loader, which can go on in the middle of an "
      "epoch: make one of the dataset, holdfast::Loader loader(dataset, {.batch_size = 64}); over batches that "
      "you hold there is session.epochs({.count = 10}, batches)");
  using Range = void;
};

template <class T>
struct NotLoaderOptions {
  static_assert(never<T>, "holdfast::Loader takes the batch size by name: Loader(dataset, {.batch_size = 64})");
  using Refused = int;
};

template <class Batches>
struct TemporaryBatches {
  static_assert(never<Batches>,
                "session.epochs({.count = n}, batches) goes over a variable of yours: give the batches a name first");
  using Range = void;
};

template <class T>
struct WithoutStep {
  static_assert(never<T>,
                "Pipeline::step() needs the step of the loop first: pipeline.step(step, [&] { return loss; }), with "
                "the step that session.steps() gives");
  using Outcome = void;
};

/// Stands where `data` or `target` of a batch is asked for that is a vector of samples.
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

}  // namespace holdfast
