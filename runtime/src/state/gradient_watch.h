// Which tracked items are given gradients, seen by hooks on their tensors: by the time a step is over the program may
// have dropped the gradients again, as zero_grad() at the step's end does.
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

  /// A leaf of the item that requires gradients. The hook is called on a thread of the backward pass.
  void add(const std::string& item, const std::string& name, const at::Tensor& leaf) {
    auto seen = std::make_shared<std::atomic<bool>>(false);
    const unsigned number = leaf.register_hook([seen](const at::Tensor&) { seen->store(true); });
    hooks_.push_back({item, name, leaf, number, std::move(seen)});
  }

  /// An optimizer holds a tensor of this item.
  void note_held(const std::string& item) { held_.insert(item); }

  /// Which tensors were given gradients so far and are not in `held`: their items, where no optimizer holds a tensor of
  /// the item, else the modules that they are in.
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
