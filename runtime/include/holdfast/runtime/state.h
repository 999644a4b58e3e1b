// State: what a user's own type saves and loads. Tensors and JSON values by name, nested where the type is.
//
//   struct Ema {
//     torch::Tensor average;
//     double decay = 0.999;
//     void save(holdfast::State& state) const { state.put("average", average).put("decay", decay); }
//     void load(const holdfast::State& state) { state.get_to("average", average); state.get_to("decay", decay); }
//   };
//
// Names are UTF-8 and not empty; dots are fine ("encoder.weight"). A nested State is a view of the same contents under
// a longer name: nested("a").put("b", x) and put("a.b", x) are the same. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

namespace holdfast {

class State;

/// A user's type with its own `save(State&) const` and `load(const State&)`.
template <class T>
concept HasState = requires(const T& saved, T& loaded, State& state, const State& from) {
  saved.save(state);
  loaded.load(from);
};

/// One of which every rank holds a share, such as a part of a sum. Where a checkpoint of N ranks is loaded on M, it is
/// given the states of the ranks r of before with r % M == rank as `shares`, none where there were fewer ranks; `own`
/// is the first of these, or else rank 0's.
template <class T>
concept HasShares = HasState<T> && requires(T& loaded, const State& own, const std::vector<State>& shares) {
  loaded.load_shares(own, shares);
};

class State {
 public:
  State();

  /// The part of this state whose names start with `name` and a dot. Shares its contents.
  State nested(const std::string& name) const;
  /// Whether there is a tensor or a value of this name, or anything nested below it.
  bool has(const std::string& name) const;

  /// Adds a tensor (by handle: its bytes are read while the checkpoint is written, an undefined one comes back
  /// undefined), an object with save(State&), or anything with a JSON form. Throws Error for a name that is taken.
  template <class T>
  State& put(const std::string& name, const T& x) {
    if constexpr (std::is_convertible_v<const T&, const at::Tensor&>) {
      put_tensor(name, x, /*is_alike=*/false);
    } else if constexpr (HasState<T>) {
      State inner = nested(name);
      x.save(inner);
    } else {
      static_assert(!std::is_same_v<T, long double>, "a long double has no exact JSON form: save it as a double");
      put_value(name, nlohmann::json(x));
    }
    return *this;
  }

  /// A tensor of which it is known that all ranks hold the same, as parameters and their averages are: spares the
  /// comparison at every save.
  State& put_alike(const std::string& name, const at::Tensor& tensor) {
    put_tensor(name, tensor, /*is_alike=*/true);
    return *this;
  }

  /// What was put under this name; Error (misfit) names what is not there. Loaded tensors are on the CPU, contiguous,
  /// and the caller's own.
  template <class T>
  T get(const std::string& name) const {
    if constexpr (std::is_same_v<T, at::Tensor>) {
      return tensor(name);
    } else {
      T x{};
      get_to(name, x);
      return x;
    }
  }

  /// As get(), into `x`. A defined tensor is overwritten in place, on its device, and must have the same shape and
  /// dtype; an undefined one becomes the loaded CPU tensor.
  template <class T>
  void get_to(const std::string& name, T& x) const {
    if constexpr (std::is_same_v<T, at::Tensor>) {
      copy_tensor(name, x);
    } else if constexpr (HasState<T>) {
      x.load(nested(name));
    } else {
      try {
        value(name).get_to(x);
      } catch (const nlohmann::json::exception& error) {
        throw_other_type(name, error.what());
      }
    }
  }

  /// Everything below this state's name, the rest of the names as keys.
  std::map<std::string, at::Tensor> tensors() const;
  std::map<std::string, nlohmann::json> values() const;
  /// Whether a tensor was put as alike on all ranks.
  bool is_alike(const std::string& name) const;

 private:
  struct Contents;
  void put_tensor(const std::string& name, const at::Tensor& tensor, bool is_alike);
  void put_value(const std::string& name, nlohmann::json value);
  const at::Tensor& tensor(const std::string& name) const;
  const nlohmann::json& value(const std::string& name) const;
  void copy_tensor(const std::string& name, at::Tensor& into) const;
  [[noreturn]] void throw_other_type(const std::string& name, const std::string& why) const;

  std::shared_ptr<Contents> contents_;
  std::string prefix_;  // empty, or ends with a dot
};

}  // namespace holdfast
