// Ddp: data parallelism. Every rank has the whole model and a part of each batch; the last backward of a window
// averages the gradients over all ranks while it still computes, in buckets of neighbouring parameters, with c10d's
// Reducer. Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// The dtype in which gradients are exchanged. Reducing in fewer bits changes the result; `none` is exact. Between GPUs
/// of one host the conversions cost more than they save: compression is for slow networks.
enum class Compress { none, bf16, fp16 };

struct DdpOptions {
  std::int64_t bucket_bytes = 0;  // of gradients exchanged together; 0: sizes that suit the model, see PIPELINE.md
  std::int64_t first_bucket_bytes = std::int64_t{1} << 20;  // the first one ready: smaller, so that it is sent early
  bool find_unused = false;       // some steps may leave parameters without a gradient; else that is an error
  bool broadcast_buffers = true;  // from rank 0, when a window begins in training mode
  Compress compress = Compress::none;
};

namespace detail {

/// Limits of gradient buckets in bytes. A bucket is closed once it reaches its limit.
struct BucketLimits {
  std::int64_t first = 0;  // of the bucket that is ready first
  std::int64_t most = 0;   // of each further one
  std::int64_t least = 0;  // of the last ones, which hold at most half of what is left; equal to `most`: no such rule
};

/// The limits for models with `all_gradients` bytes of gradients, followed by those that earlier versions of Holdfast
/// chose, because a resumed run keeps the buckets that it began with. A twelfth of all gradients, at least 25 and at
/// most 200 MB, and less for the last buckets: few exchanges disturb concurrent matrix products less than many, but no
/// backward work hides the last one (measured: encoder_bench).
std::vector<BucketLimits> automatic_bucket_limits(std::int64_t all_gradients, std::int64_t first);

/// Which parameters share a bucket: indices by bucket, from the last parameter, whose gradient is ready first, to the
/// first one. A bucket holds one dtype. A pure function, so that a resumed run adds in the same order.
std::vector<std::vector<std::size_t>> bucket_layout(const std::vector<at::Tensor>& parameters,
                                                    const BucketLimits& limits);

}  // namespace detail

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
