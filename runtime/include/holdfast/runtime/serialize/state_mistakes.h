// The compiler's first error message for an object that cannot be tracked: one sentence, which states what is wrong and
// what to write.
#pragma once

#include <concepts>
#include <memory>
#include <random>
#include <type_traits>

#include "holdfast/runtime/never.h"
#include "holdfast/runtime/serialize/state_forms.h"

namespace holdfast::detail {

/// Whether an argument of type `T&&` outlives the call: it is a variable, or a module whose ownership is passed.
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

/// Whether objects of type T can be tracked. If not, a static_assert reports why.
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

}  // namespace holdfast::detail
