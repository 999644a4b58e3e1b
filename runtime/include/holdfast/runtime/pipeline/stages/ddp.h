// Ddp: data parallelism. Every rank has the whole model and a part of each batch; the last backward of a window
// averages the gradients over all ranks while it still computes, in buckets of neighbouring parameters, over c10d's
// Reducer. Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// The dtype in which gradients travel. Sums in fewer bits are other sums: `none` is exact. Between GPUs of one host
/// the conversions cost more than they save; it is for slow networks.
enum class Compress { none, bf16, fp16 };

struct DdpOptions {
  std::int64_t bucket_bytes = 0;  // of gradients that travel together; 0: automatic_bucket_bytes
  std::int64_t first_bucket_bytes = std::int64_t{1} << 20;  // the first to be ready: smaller, so that it leaves early
  bool find_unused = false;       // some parameters get no gradient in some steps; else that is an error
  bool broadcast_buffers = true;  // rank 0's, at each window's beginning in training mode
  Compress compress = Compress::none;
};

/// A sixth of all gradients, but at least 25 and at most 400 MB: few exchanges disturb the products of matrices beside
/// them less than many, yet most of them should be over when backward is (measured: encoder_bench).
std::int64_t automatic_bucket_bytes(std::int64_t all_gradients);

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
