// TrackedState: everything that a run must restore, by name, as tensors and small JSON values, exact to the bit.
//
// track() registers a variable, and a save reads what the variable holds at that time: a pointer or a TORCH_MODULE
// holder may be assigned another module or optimizer at any time, and Module::to() or reset() after track() is fine.
// Lifetimes: the variable must live until the last capture() or restore(), or until untrack(). Only a module that is
// given as a temporary shared_ptr is kept alive. Variables are not accessed in between, nor by the destructor. Threads:
// one at a time, the training thread.
//
// Flags are state: which parameters require gradients, and which submodules are in training mode. Like an optimizer's
// option, a flag is restored if the program's flag is the one that the run began with; otherwise the program's flag
// stays, and a note reports it.
//
// Names: module "net" gives "net.conv1.weight"; optimizer "optimizer" gives "optimizer.state.net.conv1.weight.exp_avg";
// the process's generators give "generator.cpu", "generator.cuda0", …. Gradients are not part of the state.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <type_traits>
#include <typeindex>
#include <utility>
#include <vector>

#include "holdfast/runtime/serialize/object_access.h"
#include "holdfast/runtime/serialize/object_reference.h"
#include "holdfast/runtime/serialize/resizable.h"
#include "holdfast/runtime/serialize/state.h"
#include "holdfast/runtime/serialize/state_mistakes.h"
#include "holdfast/runtime/serialize/value_access.h"

namespace holdfast::detail {

/// A TORCH_MODULE holder: `Net net;`.
template <class T>
concept IsModuleHolder = requires(const T& holder) {
  typename T::ContainedType;
  { holder.ptr() } -> std::convertible_to<std::shared_ptr<torch::nn::Module>>;
};

class TrackedState {
 public:
  ~TrackedState();
  TrackedState(TrackedState&&) noexcept;
  TrackedState& operator=(TrackedState&&) noexcept;

  /// Takes modules, optimizers and torch::optim's schedulers (themselves, or the holder or pointer that holds them),
  /// tensors, generators, user types with holdfast_state(), save()/load() or state()/set_state(json), and everything
  /// else that state.h names.
  /// Throws Error (invalid) for a name that is taken, empty or not UTF-8, for a pointer that is null, and for an object
  /// that is tracked already.
  template <class T>
  TrackedState& track(const std::string& name, T& x);
  /// A module without another owner, which is kept alive: `track("net", std::make_shared<Net>())`.
  template <std::derived_from<torch::nn::Module> M>
  TrackedState& track(const std::string& name, std::shared_ptr<M>&& module) {
    add_module(name, {nullptr, typeid(void)}, {[module = std::move(module)] { return module.get(); }});
    return *this;
  }
  /// A tensor or module that the program grows or shrinks (resizable.h).
  template <class T>
  TrackedState& track(const std::string& name, T&& x, Resizable) {
    static_assert(HasTensorsToResize<std::remove_cvref_t<T>>,
                  "holdfast::resizable is for a tensor or a module: track everything else without it");
    track(name, std::forward<T>(x));
    let_resize(name);
    return *this;
  }

  /// Stops tracking an item: its name becomes free, and its variable is not accessed again. Throws Error (invalid) for
  /// a name that is not tracked.
  void untrack(const std::string& name);

 protected:
  struct Registry;
  explicit TrackedState(std::unique_ptr<Registry> registry);

  /// Finds the current parts of all objects, and tracks the parts that are new.
  void find_parts() const;

  std::unique_ptr<Registry> registry_;

 private:
  struct Identity {
    const void* address;
    std::type_index type;
  };
  template <class T>
  void add(const std::string& name, T& x);
  void add_module(const std::string& name, Identity identity, ObjectReference<torch::nn::Module> module);
  void add_optimizer(const std::string& name, Identity identity, ObjectReference<torch::optim::Optimizer> optimizer);
  void add_scheduler(const std::string& name, Identity identity, ObjectReference<torch::optim::LRScheduler> scheduler);
  void add_scheduler(const std::string& name, Identity identity,
                     ObjectReference<torch::optim::ReduceLROnPlateauScheduler> scheduler);
  void add_tensor(const std::string& name, at::Tensor& tensor);
  void add_generator(const std::string& name, at::Generator& generator);
  void add_value(const std::string& name, Identity identity, ValueAccess access);
  void add_object(const std::string& name, Identity identity, ObjectAccess access);
  void let_resize(const std::string& name);
  void note_generator(const std::string& name);
};

template <class T, class... How>
void track_part(TrackedState& tracked, const std::string& full_name, T& x, How... how) {
  tracked.track(full_name, x, how...);
}

template <class T>
TrackedState& TrackedState::track(const std::string& name, T& x) {
  add(name, x);
  if constexpr (IsGenerator<T>) note_generator(name);
  return *this;
}

template <class T>
void TrackedState::add(const std::string& name, T& x) {
  [[maybe_unused]] const Identity identity{static_cast<const void*>(std::addressof(x)), typeid(T)};
  if constexpr (HasMembers<T>) {
    add_object(name, identity, access_whole(x));
  } else if constexpr (PointsTo<T, torch::nn::Module>) {
    add_module(name, identity, reference_through<torch::nn::Module>(x));
  } else if constexpr (PointsTo<T, torch::optim::Optimizer>) {
    if constexpr (HasState<std::remove_cvref_t<decltype(*x)>>) {
      add_object(name, identity, access_object_through(name, x));
    } else {
      add_optimizer(name, identity, reference_through<torch::optim::Optimizer>(x));
    }
  } else if constexpr (PointsTo<T, torch::optim::LRScheduler>) {
    add_scheduler(name, identity, reference_through<torch::optim::LRScheduler>(x));
  } else if constexpr (PointsTo<T, torch::optim::ReduceLROnPlateauScheduler>) {
    add_scheduler(name, identity, reference_through<torch::optim::ReduceLROnPlateauScheduler>(x));
  } else if constexpr (!is_trackable<T>()) {
    return;  // the compiler has reported why
  } else if constexpr (HasState<T>) {
    add_object(name, identity, access_object(x));
  } else if constexpr (HasJsonState<T>) {
    add_value(name, identity, access_json_state(x));
  } else if constexpr (std::derived_from<T, torch::nn::Module>) {
    add_module(name, identity, reference_to<torch::nn::Module>(x));
  } else if constexpr (std::derived_from<T, torch::optim::Optimizer>) {
    add_optimizer(name, identity, reference_to<torch::optim::Optimizer>(x));
  } else if constexpr (std::derived_from<T, torch::optim::LRScheduler>) {
    add_scheduler(name, identity, reference_to<torch::optim::LRScheduler>(x));
  } else if constexpr (std::derived_from<T, torch::optim::ReduceLROnPlateauScheduler>) {
    add_scheduler(name, identity, reference_to<torch::optim::ReduceLROnPlateauScheduler>(x));
  } else if constexpr (std::is_same_v<T, at::Tensor>) {
    add_tensor(name, x);
  } else if constexpr (std::is_same_v<T, at::Generator>) {
    add_generator(name, x);
  } else if constexpr (HasTextState<T>) {
    add_value(name, identity, access_text_state(x));
  } else if constexpr (std::is_arithmetic_v<T>) {
    add_value(name, identity, access_number(x));
  } else {
    add_object(name, identity, access_whole(x));
  }
}

}  // namespace holdfast::detail
