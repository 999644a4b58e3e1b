// TrackedState: everything a run must bring back, by name, as tensors and small JSON values, and back again to the bit.
//
// Lifetimes: what is tracked by reference must live until the last capture() or restore(); modules given as a
// shared_ptr or a TORCH_MODULE holder are kept alive. Nothing is touched in between, nor by the destructor: modules
// are walked anew each time, so that Module::to() or reset() after track() is fine.
// Threads: one at a time, the one that trains.
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

#include "holdfast/runtime/fit.h"
#include "holdfast/runtime/object_access.h"
#include "holdfast/runtime/rank_place.h"
#include "holdfast/runtime/state.h"
#include "holdfast/runtime/value_access.h"
#include "holdfast/storage/payload.h"
#include "holdfast/storage/version_reader.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class LRScheduler;
class Optimizer;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace holdfast {

/// The state at one boundary. The tensors refer to the live ones: they must not change until they are written.
struct Captured {
  std::vector<storage::TensorSource> tensors;  // by name
  std::map<std::string, std::string> tied;     // alias → the name its bytes are stored under
  std::set<std::string> may_differ;            // tensors that each rank may hold for itself: buffers, generators, …
  nlohmann::json values = nlohmann::json::object();
};

/// What a restore has to say besides that it worked.
struct Restored {
  std::vector<std::string> notes;  // sentences: options where the code wins, what was allowed to be missing, …
};

/// A TORCH_MODULE holder: `Net net;`.
template <class T>
concept IsModuleHolder = requires(const T& holder) {
  typename T::ContainedType;
  { holder.ptr() } -> std::convertible_to<std::shared_ptr<torch::nn::Module>>;
};

class TensorFeed;

class TrackedState {
 public:
  /// Of one rank of several: its own share of what ranks hold differently is saved and restored.
  explicit TrackedState(const RankPlace& place = {});
  ~TrackedState();
  TrackedState(TrackedState&&) noexcept;
  TrackedState& operator=(TrackedState&&) noexcept;

  /// Takes modules, optimizers, torch::optim's schedulers, tensors, generators, the standard random engines, user types
  /// with save(State&)/load(const State&) or state()/set_state(json), and anything with a JSON form.
  /// Throws Error (invalid) for a name that is taken, empty or not UTF-8, and for an object that is tracked already.
  template <class T>
  TrackedState& track(const std::string& name, T& x);
  /// As above, for `track("net", std::make_shared<Net>())`.
  template <std::derived_from<torch::nn::Module> M>
  TrackedState& track(const std::string& name, std::shared_ptr<M>&& module) {
    add_module(name, std::move(module));
    return *this;
  }

  bool tracks(const torch::nn::Module& module) const;
  bool tracks(const torch::optim::Optimizer& optimizer) const;
  /// Whether a module, an optimizer, a tensor or an object with save() is tracked: else no parameter can be.
  bool may_hold_parameters() const;

  /// The run's first step is next and nothing was restored: checks that everything can be saved, and takes the
  /// optimizers' options as they are now as the values the code gave. restore() does so too.
  void begin();

  /// Throws Error (unsupported, invalid) for what cannot be saved, in a sentence that names it.
  Captured capture() const;

  /// Compares; changes nothing. Throws Error only for what capture() would throw for.
  Fit check(const storage::Manifest& manifest, const LoosenOptions& loosen = {}) const;

  /// Checks, and throws Error (misfit) with every difference before anything is overwritten. Then reads tensors
  /// straight into their own memory where they are contiguous on the CPU (others go through a staging buffer of at most
  /// 256 MB or one tensor). Optimizer state, values, generators and user types follow only after every digest was
  /// right. When it throws after reading has begun, tensors hold unspecified values: restore another version, or stop.
  Restored restore(const storage::VersionReader& version, const LoosenOptions& loosen = {},
                   const storage::ReadOptions& options = {});
  /// The same with another source of the tensors' bytes (tensor_feed.h).
  Restored restore(const storage::Manifest& manifest, const LoosenOptions& loosen, TensorFeed& feed);

 private:
  struct Registry;
  struct Identity {
    const void* address;
    std::type_index type;
  };
  void add_module(const std::string& name, std::shared_ptr<torch::nn::Module> module);
  void add_optimizer(const std::string& name, torch::optim::Optimizer& optimizer);
  void add_scheduler(const std::string& name, torch::optim::LRScheduler& scheduler);
  void add_scheduler(const std::string& name, torch::optim::ReduceLROnPlateauScheduler& scheduler);
  void add_tensor(const std::string& name, at::Tensor& tensor);
  void add_generator(const std::string& name, at::Generator& generator);
  void add_value(const std::string& name, Identity identity, ValueAccess access);
  void add_object(const std::string& name, Identity identity, ObjectAccess access);

  std::unique_ptr<Registry> registry_;
};

template <class T>
TrackedState& TrackedState::track(const std::string& name, T& x) {
  [[maybe_unused]] const Identity identity{static_cast<const void*>(std::addressof(x)), typeid(T)};
  if constexpr (IsModuleHolder<T>) {
    add_module(name, x.ptr());
  } else if constexpr (std::is_convertible_v<T, std::shared_ptr<torch::nn::Module>>) {
    add_module(name, x);
  } else {
    static_assert(!std::is_const_v<T>, "track() needs an object that restore() may change: it is const");
    if constexpr (HasState<T>) {
      add_object(name, identity, access_object(x));
    } else if constexpr (HasJsonState<T>) {
      add_value(name, identity, access_json_state(x));
    } else if constexpr (std::derived_from<T, torch::nn::Module>) {
      add_module(name, std::shared_ptr<torch::nn::Module>(std::shared_ptr<void>(), &x));  // not owned
    } else if constexpr (std::derived_from<T, torch::optim::Optimizer>) {
      add_optimizer(name, x);
    } else if constexpr (std::derived_from<T, torch::optim::LRScheduler> ||
                         std::derived_from<T, torch::optim::ReduceLROnPlateauScheduler>) {
      add_scheduler(name, x);
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      add_tensor(name, x);
    } else if constexpr (std::is_same_v<T, at::Generator>) {
      add_generator(name, x);
    } else if constexpr (HasTextState<T>) {
      add_value(name, identity, access_text_state(x));
    } else if constexpr (std::is_arithmetic_v<T>) {
      add_value(name, identity, access_number(x));
    } else {
      static_assert(HasJsonForm<T>,
                    "track() cannot save this type: give it save(holdfast::State&) const and "
                    "load(const holdfast::State&), or nlohmann's to_json and from_json");
      add_value(name, identity, access_json_form(x));
    }
  }
  return *this;
}

}  // namespace holdfast
