// What encoder_bench measures: the model, the device, the exchange of gradients.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../../../examples/char_gpt/transformer.h"
#include "holdfast/runtime/pipeline/stages/ddp.h"

namespace encoder_bench {

struct Settings {
  TransformerOptions model{.vocabulary = 256,
                           .context = 512,
                           .layers = 12,
                           .width = 2048,
                           .heads = 16,
                           .feed_forward = 8192,
                           .dropout = 0,
                           .causal = false};
  std::int64_t batch = 16;  // sequences of `context` tokens, on each rank
  bool cuda = true;
  holdfast::DdpOptions ddp;  // plain takes its bucket sizes from it
  bool mark_last_gradient = false;
  std::string folder = ".";  // where a session keeps its run
};

// Words for choices, in the order of the choices.
template <class Value>
using Words = std::vector<std::pair<const char*, Value>>;

inline const Words<holdfast::Compress> kCompress{
    {"none", holdfast::Compress::none}, {"bf16", holdfast::Compress::bf16}, {"fp16", holdfast::Compress::fp16}};

/// The settings of a command line, after the program and the kind of loop. Ends the program if one is unknown.
Settings read_settings(int argc, char** argv);

}  // namespace encoder_bench
