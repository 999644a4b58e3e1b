// Ddp: data parallelism. Every rank has the whole model and a part of each batch; the last backward of a window
// averages the gradients over all ranks while it still computes, in buckets of neighbouring parameters, over c10d's
// Reducer. Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/stage.h"

namespace holdfast {

/// The dtype in which gradients travel. Sums in fewer bits are other sums: `none` is exact.
enum class Compress { none, bf16, fp16 };

/// Who divides by the number of ranks. `kernel`: one of ours, which passes over the bucket before it leaves; `nccl`:
/// NCCL as it reads what it is about to add, so that a pass is saved. Compressed gradients are divided as they are
/// converted, and on the CPU it is `kernel`, for Gloo divides only what it has added.
enum class DivideBy { kernel, nccl };

struct DdpOptions {
  std::int64_t bucket_bytes = std::int64_t{25} << 20;       // of gradients that travel together
  std::int64_t first_bucket_bytes = std::int64_t{1} << 20;  // the first to be ready: smaller, so that it leaves early
  bool find_unused = false;       // some parameters get no gradient in some steps; else that is an error
  bool broadcast_buffers = true;  // rank 0's, at each window's beginning in training mode
  Compress compress = Compress::none;
  DivideBy divide_by = DivideBy::kernel;
  /// Multiprocessors of a GPU that matrix products leave free while gradients travel: a product that finds some of them
  /// taken by NCCL waits for a second round of its blocks.
  int spare_multiprocessors = 0;
};

/// Which parameters travel together: indices by bucket, from the last parameter, whose gradient is ready first, to the
/// first one. A bucket holds one dtype and is closed once it has as many bytes as it may. A pure function, so that a
/// resumed run adds in the same order.
std::vector<std::vector<std::size_t>> bucket_layout(const std::vector<at::Tensor>& parameters,
                                                    std::int64_t first_bucket_bytes, std::int64_t bucket_bytes);

class Ddp : public Stage {
 public:
  explicit Ddp(const DdpOptions& options = {});
  Ddp(Ddp&&) noexcept;
  ~Ddp() override;
  std::string name() const override { return "ddp"; }
  Place place() const override { return Place::exchange; }
  void attach(StageContext& context) override;
  std::shared_ptr<void> forward_scope(const MicroBatch& micro) override;
  void before_backward(const MicroBatch& micro, at::Tensor& loss) override;
  void after_backward(const MicroBatch& micro) override;
  void save(State& state) const override;
  void load(const State& state) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
