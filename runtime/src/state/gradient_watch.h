// Finds the tracked items that receive gradients. It uses hooks on their tensors, because the program may have cleared
// the gradients when a step is over, as zero_grad() at the step's end does.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace holdfast {

class GradientWatch {
 public:
  GradientWatch() = default;
  ~GradientWatch() {
    for (const Hook& hook : hooks_) hook.tensor.remove_hook(hook.number);
  }
  GradientWatch(const GradientWatch&) = delete;
  GradientWatch& operator=(const GradientWatch&) = delete;

  /// Watches a leaf of the item that requires gradients. The hook is called on a thread of the backward pass.
  void add(const std::string& item, const std::string& name, const at::Tensor& leaf) {
    auto seen = std::make_shared<std::atomic<bool>>(false);
    const unsigned number = leaf.register_hook([seen](const at::Tensor&) { seen->store(true); });
    hooks_.push_back({item, name, leaf, number, std::move(seen)});
  }

  /// Notes that an optimizer holds a tensor of this item.
  void note_held(const std::string& item) { held_.insert(item); }

  /// The tensors that received gradients so far and are not in `held`: each as its item if no optimizer holds a tensor
  /// of the item, otherwise as the module that contains it.
  std::vector<std::string> forgotten(const std::set<const void*>& held) const {
    std::set<std::string> with_held = held_;
    for (const Hook& hook : hooks_) {
      if (is_in(held, hook)) with_held.insert(hook.item);
    }
    std::set<std::string> found;
    for (const Hook& hook : hooks_) {
      if (is_in(held, hook) || !hook.seen->load()) continue;
      found.insert(with_held.contains(hook.item) ? hook.name.substr(0, hook.name.rfind('.')) : hook.item);
    }
    return {found.begin(), found.end()};
  }

 private:
  struct Hook {
    std::string item;
    std::string name;
    at::Tensor tensor;
    unsigned number;
    std::shared_ptr<std::atomic<bool>> seen;
  };
  static bool is_in(const std::set<const void*>& held, const Hook& hook) {
    return held.contains(hook.tensor.unsafeGetTensorImpl());
  }

  std::vector<Hook> hooks_;
  std::set<std::string> held_;  // items
};

}  // namespace holdfast
