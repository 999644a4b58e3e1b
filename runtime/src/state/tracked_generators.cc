#include "state/tracked_generators.h"

#include <ATen/Context.h>
#include <torch/cuda.h>

#include <mutex>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

at::Tensor state_of(const at::Generator& generator) {
  at::Generator handle = generator;
  const std::lock_guard<std::mutex> lock(handle.mutex());
  return handle.get_state();
}

void set_state_of(const at::Generator& generator, const at::Tensor& state) {
  at::Generator handle = generator;
  const std::lock_guard<std::mutex> lock(handle.mutex());
  handle.set_state(state);
}

void plan_generator(RestorePlan& plan, const std::string& name, const storage::TensorEntry& entry,
                    const at::Generator& generator) {
  if (!plan.matches(name, entry, state_of(generator))) return;
  if (plan.is_of_other_ranks(name)) {
    plan.apply([generator, seed = plan.fresh_seed(name)](std::vector<std::string>&) {
      at::Generator handle = generator;
      const std::lock_guard<std::mutex> lock(handle.mutex());
      handle.set_current_seed(seed);
    });
    return;
  }
  plan.apply([generator, made = plan.make(entry)](std::vector<std::string>&) { set_state_of(generator, *made); });
}

class TrackedGenerator : public TrackedItem {
 public:
  TrackedGenerator(std::string name, at::Generator& generator) : TrackedItem(std::move(name)), generator_(generator) {
    require_defined();
  }

  void capture(Capture& capture) const override {
    require_defined();
    capture.tensor(name(), state_of(generator_), /*is_alike=*/false);
  }

  void plan(RestorePlan& plan) override {
    require_defined();
    if (const auto* entry = plan.need_tensor(name(), "a random generator")) {
      plan_generator(plan, name(), *entry, generator_);
    }
  }

 private:
  void require_defined() const {
    if (!generator_.defined()) {
      throw Error(storage::StatusCode::invalid,
                  "generator '" + name() + "' is undefined: make it first, as with at::detail::createCPUGenerator()");
    }
  }

  at::Generator& generator_;
};

// With several ranks, each computes on one device, which is its "cuda0" whatever its number on this host.
class DefaultGenerators : public TrackedItem {
 public:
  explicit DefaultGenerators(const RankPlace& place) : TrackedItem("generator"), place_(place) {}

  void capture(Capture& capture) const override {
    capture.tensor("generator.cpu", state_of(at::globalContext().defaultGenerator(at::kCPU)), /*is_alike=*/false);
    for (int i = 0; i < devices(); ++i) capture.tensor(cuda_name(i), state_of(cuda(i)), /*is_alike=*/false);
  }

  void plan(RestorePlan& plan) override {
    if (const auto* entry = plan.need_tensor("generator.cpu", "LibTorch's CPU generator")) {
      plan_generator(plan, "generator.cpu", *entry, at::globalContext().defaultGenerator(at::kCPU));
    }
    for (int i = 0; i < devices(); ++i) {
      if (const auto* entry = plan.find_tensor(cuda_name(i))) {
        plan_generator(plan, cuda_name(i), *entry, cuda(i));
      } else {
        plan.fit.notes.push_back("the checkpoint holds no " + cuda_name(i) +
                                 ": that device's generator stays as it is");
      }
    }
    // Saved generators are numbered without gaps.
    for (int i = devices(); plan.find_tensor(cuda_name(i)); ++i) {
      plan.fit.notes.push_back(cuda_name(i) +
                               " is left unread: " + (place_.world_size > 1 ? "this rank" : "this machine") + " has " +
                               std::to_string(devices()) + (devices() == 1 ? " CUDA device" : " CUDA devices"));
    }
  }

 private:
  int devices() const {
    if (place_.world_size > 1) return place_.device.is_cuda() ? 1 : 0;
    return static_cast<int>(torch::cuda::device_count());
  }
  static std::string cuda_name(int index) { return "generator.cuda" + std::to_string(index); }
  at::Generator cuda(int index) const {
    return at::globalContext().defaultGenerator(
        place_.world_size > 1 ? place_.device : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index)));
  }

  const RankPlace& place_;
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_generator(std::string name, at::Generator& generator) {
  return std::make_unique<TrackedGenerator>(std::move(name), generator);
}

std::unique_ptr<TrackedItem> make_default_generators(const RankPlace& place) {
  return std::make_unique<DefaultGenerators>(place);
}

}  // namespace holdfast
