// Group: the ranks of a run and their collectives. Every rank calls the same operations in the same order. Before any
// bytes move, the ranks compare what they are about to do: a divergence is an error on all of them that names ranks,
// operations and call sites. A rank that died or threw stops the others within seconds. One rank alone is a group too.
//
// Values are of any type that nlohmann::json converts. They are exact: numbers keep every bit, NaN stays NaN.
// Threads: one at a time, the one that trains. Errors: RankFault if the ranks cannot continue together.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/ranks/rank_environment.h"

namespace c10d {
class ProcessGroup;
}

namespace holdfast {

/// The ranks cannot continue together: they diverged, or one of them threw, died or hangs.
class RankFault : public Error {
 public:
  explicit RankFault(const std::string& sentence) : Error(storage::StatusCode::invalid, sentence) {}
};

enum class Reduce { sum, mean, min, max };

namespace detail {

/// Strings must own their bytes, because a view would point into a received value that is destroyed.
template <class T>
concept JsonValue = requires(nlohmann::json json, const T& value) {
  nlohmann::json(value);
  { json.get<T>() } -> std::convertible_to<T>;
}
&&!std::same_as<std::remove_cvref_t<T>, at::Tensor> && !std::same_as<std::remove_cvref_t<T>, std::string_view>;

struct GroupOptions;
class GroupControl;

}  // namespace detail

class Group {
 public:
  using Site = std::source_location;

  /// Runs the rendezvous with the other ranks. `device` is where this rank's tensors are. A session makes the program's
  /// group; a test of a stage makes a group of one rank: Group({}, c10::kCPU).
  Group(const RankEnvironment& ranks, c10::Device device);
  /// The session calls this one. `options` says how long to wait for the other ranks, and where reports go.
  Group(const RankEnvironment& ranks, c10::Device device, const detail::GroupOptions& options);
  /// If the ranks have not agreed to end before, as session.finish() does, this rank counts as failed and the others
  /// stop.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const;
  int world_size() const;
  int local_rank() const;
  c10::Device device() const;
  bool is_main() const { return rank() == 0; }

  /// Returns when all ranks have called it.
  void barrier(Site site = Site::current());

  /// Rank `from`'s value, on every rank.
  template <detail::JsonValue T>
  T broadcast(const T& value, int from = 0, Site site = Site::current()) {
    return broadcast_json(rank() == from ? nlohmann::json(value) : nlohmann::json(), from, site).template get<T>();
  }
  /// Every rank's value, by rank.
  template <detail::JsonValue T>
  std::vector<T> all_gather(const T& value, Site site = Site::current()) {
    return gather_values("all_gather", "values", value, site);
  }
  /// Every rank's value, by rank, on rank `to`; empty on the others.
  template <detail::JsonValue T>
  std::vector<T> gather(const T& value, int to = 0, Site site = Site::current()) {
    require_rank("gather", to, site);
    auto all = gather_values("gather", "values" + to_rank(to), value, site);
    if (rank() != to) all.clear();
    return all;
  }
  /// Adds in the order of ranks, so the result is alike on all of them to the last bit. A mean needs floating-point
  /// numbers.
  template <class T>
  requires std::is_arithmetic_v<T> T all_reduce(T value, Reduce how = Reduce::sum, Site site = Site::current()) {
    static_assert(!std::same_as<T, bool>, "all_reduce takes numbers; of a bool, reduce an int");
    if (!std::is_floating_point_v<T> && how == Reduce::mean) {
      throw Error(storage::StatusCode::invalid, "the mean of integers is not an integer; give a double");
    }
    const char* const numbers = std::is_floating_point_v<T> ? "numbers" : "whole numbers";
    const std::vector<T> all = gather_values("all_reduce", name_of(how) + numbers, value, site);
    T result = all.front();
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (how == Reduce::sum || how == Reduce::mean) {
        result = static_cast<T>(result + all[i]);
      } else if (all[i] != all[i] || (how == Reduce::min ? all[i] < result : result < all[i])) {
        result = all[i];  // NaN wins in both min and max, as in LibTorch
      }
    }
    return how == Reduce::mean ? static_cast<T>(result / static_cast<T>(all.size())) : result;
  }

  /// In place; all ranks must pass the same shape and dtype. For CPU tensors the order of additions in `mean` and `sum`
  /// depends on the number of ranks.
  void broadcast(at::Tensor& tensor, int from = 0, Site site = Site::current());
  void all_reduce(at::Tensor& tensor, Reduce how = Reduce::sum, Site site = Site::current());
  /// Every rank's tensor, by rank. The first dimension may differ, and may be 0.
  std::vector<at::Tensor> all_gather(const at::Tensor& tensor, Site site = Site::current());
  std::vector<at::Tensor> gather(const at::Tensor& tensor, int to = 0, Site site = Site::current());

  /// Runs `act` on rank 0 and gives its result, or its exception, to every rank. The others get the exception's type
  /// and text in an Error.
  template <class Act>
  auto on_main(Act&& act, Site site = Site::current()) {
    using T = std::invoke_result_t<Act>;
    static_assert(std::is_void_v<T> || detail::JsonValue<T>,
                  "on_main gives every rank a value that has a JSON form and owns what it holds, as std::string does");
    nlohmann::json result;
    run_on_main(
        "on_main",
        [&] {
          if constexpr (std::is_void_v<T>) {
            act();
          } else {
            result = act();
          }
          return result;
        },
        result, site);
    if constexpr (!std::is_void_v<T>) return result.template get<T>();
  }
  /// Runs `act` on rank 0, then on all others, so that they find what rank 0 downloaded or built.
  template <class Act>
  void main_first(Act&& act, Site site = Site::current()) {
    nlohmann::json nothing;
    run_on_main(
        "main_first",
        [&] {
          act();
          return nlohmann::json();
        },
        nothing, site);
    if (!is_main()) act();
  }

  /// This rank's part of [0, size): parts are contiguous, in the order of ranks, and differ by one at most.
  std::pair<std::size_t, std::size_t> part(std::size_t size) const;
  template <class T>
  std::vector<T> split(const std::vector<T>& all) const {
    const auto [begin, end] = part(all.size());
    return std::vector<T>(all.begin() + static_cast<std::ptrdiff_t>(begin),
                          all.begin() + static_cast<std::ptrdiff_t>(end));
  }
  /// Reverses split(): concatenates all ranks' parts, or what was made of them, on every rank.
  template <detail::JsonValue T>
  std::vector<T> gather_in_order(const std::vector<T>& mine, Site site = Site::current()) {
    std::vector<T> all;
    for (auto& one : gather_values("gather_in_order", "values", mine, site))
      all.insert(all.end(), one.begin(), one.end());
    return all;
  }

  // For stages, which may need collectives of their own.

  /// Every rank's value, by rank, gathered under the name `operation`. `what` must be alike on all ranks: an error
  /// quotes it to show how they differ.
  std::vector<nlohmann::json> compare(const char* operation, const std::string& what, const nlohmann::json& value,
                                      Site site = Site::current());
  /// Runs another operation of all ranks, such as a backward pass that averages gradients. While `act` runs, the others
  /// know where this rank is; an error in it becomes a RankFault on all ranks, with the cause.
  void operation(const std::string& name, const std::function<void()>& act, Site site = Site::current());
  /// c10d's group of the same ranks, for calls inside of operation(). Empty in a group of one.
  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const;
  /// Throws RankFault if all ranks must stop. Operations call it themselves. Results from a GPU may be garbage once a
  /// fault has ended the wait for them, so call it before using them.
  void check() const;

 private:
  friend class detail::GroupControl;  // what the library itself calls

  template <class T>
  std::vector<T> gather_values(const char* operation, const std::string& what, const T& value, Site site) {
    std::vector<T> all;
    for (const auto& one : compare(operation, what, nlohmann::json(value), site)) {
      all.push_back(one.template get<T>());
    }
    return all;
  }
  std::vector<at::Tensor> gather_tensors(const char* operation, const std::string& whither, const at::Tensor& tensor,
                                         Site site);
  static std::string to_rank(int rank);    // " to rank 2"
  static std::string name_of(Reduce how);  // "the sum of "
  nlohmann::json broadcast_json(const nlohmann::json& value, int from, Site site);
  void require_rank(const char* operation, int rank, Site site) const;
  void run_on_main(const char* operation, const std::function<nlohmann::json()>& act, nlohmann::json& result,
                   Site site);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
