// One rank's side of encoder_bench.py: trains a transformer encoder with bf16 autocast and a fused AdamW and times its
// steps. It does the same work in two ways:
//   encoder_bench holdfast NAME=VALUE...   a session's pipeline with Ddp and Amp
//   encoder_bench plain NAME=VALUE...      a hand-written loop over LibTorch: autocast, c10d's Reducer,
//                                          at::_fused_adamw_
//   encoder_bench describe                 what this build and machine have, and Ddp's defaults
// The environment gives the rank, as torchrun sets it. A driver writes orders, one a line, to the stdin of each rank by
// a separate pipe, so that no rank waits for another inside a collective while the group is idle:
//   round WARM STEPS [local]   WARM steps untimed, then STEPS timed; local: gradients are not exchanged (plain)
//   exchange                   what the exchange costs with nothing running beside it (plain)
//   quit
// The answers are lines "bench {JSON}", with times in milliseconds.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "device/device.h"
#include "encoder/answers.h"
#include "encoder/loops.h"
#include "encoder/settings.h"
#include "holdfast/holdfast.h"

namespace {

using namespace encoder_bench;
using nlohmann::json;

int describe() {
  const TransformerOptions model = Settings().model;
  const std::int64_t of_block = model.width * (4 * model.width + 2 * model.feed_forward);  // its matrices
  const auto all = static_cast<std::int64_t>(sizeof(float)) * model.layers * of_block;
  const auto facts = holdfast::find_gpus();
  const holdfast::DdpOptions ddp;
  json gpus = json::array();
  for (const auto& gpu : facts.gpus) gpus.push_back(gpu.name);
#ifdef USE_C10D_NCCL
  const bool nccl = true;
#else
  const bool nccl = false;
#endif
  answer({{"gpus", gpus},
          {"libtorch_sees_gpu", facts.libtorch_sees_gpu},
          {"libtorch_cuda", facts.libtorch_cuda},
          {"nccl", nccl},
          {"bucket_mb",
           static_cast<double>(holdfast::detail::automatic_bucket_limits(all, 1 << 20).front().most) / (1 << 20)},
          {"first_bucket_mb", static_cast<double>(ddp.first_bucket_bytes) / (1 << 20)},
          {"compress", kCompress[static_cast<int>(ddp.compress)].first}});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind == "describe") return describe();
  if (kind != "holdfast" && kind != "plain") refuse("say describe, holdfast or plain; encoder_bench.py starts it");
  const Settings settings = read_settings(argc, argv);
  if (kind == "plain") return run_plain(settings);
  argc = 1;  // the other arguments are not for the session
  return run_holdfast(settings, argc, argv);
}
