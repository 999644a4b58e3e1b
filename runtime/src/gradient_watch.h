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

  /// A leaf that requires gradients. The hook is called on a thread of the backward pass.
  void add(const std::string& item, const at::Tensor& leaf) {
    auto seen = std::make_shared<std::atomic<bool>>(false);
    const unsigned number = leaf.register_hook([seen](const at::Tensor&) { seen->store(true); });
    hooks_.push_back({item, leaf, number, std::move(seen)});
  }

  /// The items with a gradient so far of a tensor that is not in `held`.
  std::set<std::string> items(const std::set<const void*>& held) const {
    std::set<std::string> found;
    for (const Hook& hook : hooks_) {
      if (hook.seen->load() && !held.contains(hook.tensor.unsafeGetTensorImpl())) found.insert(hook.item);
    }
    return found;
  }

 private:
  struct Hook {
    std::string item;
    at::Tensor tensor;
    unsigned number;
    std::shared_ptr<std::atomic<bool>> seen;
  };
  std::vector<Hook> hooks_;
};

}  // namespace holdfast
