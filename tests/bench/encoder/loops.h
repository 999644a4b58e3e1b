// The two training loops that are compared. Both train the same model on the same tokens and answer the driver's
// orders.
#pragma once

#include "settings.h"

namespace encoder_bench {

/// A session's pipeline with Ddp and Amp.
int run_holdfast(const Settings& s, int argc, char** argv);
/// By hand over LibTorch: autocast, c10d's Reducer, at::_fused_adamw_.
int run_plain(const Settings& s);

}  // namespace encoder_bench
