// A transformer on tokens: a decoder with a causal mask, an encoder without. Pre-norm blocks, learned positions.
// Sources: Vaswani et al., "Attention Is All You Need", NIPS 2017; pre-norm and initial weights as in Radford et al.,
// "Language Models are Unsupervised Multitask Learners", 2019; tied embeddings: Press and Wolf, EACL 2017.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <string>

struct TransformerOptions {
  std::int64_t vocabulary = 256;
  std::int64_t context = 64;  // tokens, at most
  std::int64_t layers = 4;
  std::int64_t width = 128;
  std::int64_t heads = 4;
  std::int64_t feed_forward = 512;
  double dropout = 0.1;  // after the embedding, and on each branch before it is added
  bool causal = true;    // a token sees only itself and the tokens before it
  bool tied = true;      // tokens are scored by their own embeddings
};

// For inputs other than a matrix, LibTorch's own Linear adds the bias in a second kernel; this uses one, as in Python.
inline torch::Tensor affine(const torch::nn::Linear& layer, const torch::Tensor& x) {
  return torch::linear(x, layer->weight, layer->bias);
}

struct AttentionImpl : torch::nn::Module {
  explicit AttentionImpl(const TransformerOptions& o)
      : heads(o.heads),
        causal(o.causal),
        qkv(register_module("qkv", torch::nn::Linear(o.width, 3 * o.width))),
        out(register_module("out", torch::nn::Linear(o.width, o.width))) {
    TORCH_CHECK_VALUE(o.width % o.heads == 0, "a width of ", o.width, " does not divide into ", o.heads, " heads");
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto batch = x.size(0), length = x.size(1), width = x.size(2);
    // One product for queries, keys and values; unbind makes views of it without copying.
    const auto parts = affine(qkv, x).view({batch, length, 3, heads, width / heads}).transpose(1, 3).unbind(2);
    const auto mixed = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, /*dropout_p=*/0.0, causal);
    return affine(out, mixed.transpose(1, 2).reshape({batch, length, width}));
  }
  std::int64_t heads;
  bool causal;
  torch::nn::Linear qkv, out;
};
TORCH_MODULE(Attention);

struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(const TransformerOptions& o)
      : norm1(register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))),
        attention(register_module("attention", Attention(o))),
        norm2(register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))),
        up(register_module("up", torch::nn::Linear(o.width, o.feed_forward))),
        down(register_module("down", torch::nn::Linear(o.feed_forward, o.width))),
        dropout(register_module("dropout", torch::nn::Dropout(o.dropout))) {}
  torch::Tensor forward(torch::Tensor x) {
    x = x + dropout->forward(attention->forward(norm1->forward(x)));
    return x + dropout->forward(affine(down, torch::gelu(affine(up, norm2->forward(x)), "tanh")));
  }
  torch::nn::LayerNorm norm1;
  Attention attention;
  torch::nn::LayerNorm norm2;
  torch::nn::Linear up, down;
  torch::nn::Dropout dropout;
};
TORCH_MODULE(Block);

struct TransformerImpl : torch::nn::Module {
  explicit TransformerImpl(const TransformerOptions& o)
      : options(o),
        tokens(register_module("tokens", torch::nn::Embedding(o.vocabulary, o.width))),
        positions(register_module("positions", torch::nn::Embedding(o.context, o.width))),
        dropout(register_module("dropout", torch::nn::Dropout(o.dropout))),
        norm(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))) {
    blocks = register_module("blocks", torch::nn::ModuleList());
    for (std::int64_t i = 0; i < o.layers; ++i) blocks->push_back(Block(o));
    if (!o.tied) {
      scores =
          register_module("scores", torch::nn::Linear(torch::nn::LinearOptions(o.width, o.vocabulary).bias(false)));
    }
    // Each block adds two branches. Their outputs start smaller, so that their sum does not grow with the depth.
    const double deviation = 0.02, of_branches = deviation / std::sqrt(2.0 * static_cast<double>(o.layers));
    const torch::NoGradGuard no_grad;
    for (auto& parameter : named_parameters()) {
      if (parameter.value().dim() < 2) continue;  // norms keep their values
      const bool ends_branch = parameter.key().ends_with("out.weight") || parameter.key().ends_with("down.weight");
      parameter.value().normal_(0, ends_branch ? of_branches : deviation);
    }
  }

  /// Batch × length token numbers to batch × length × vocabulary scores of the next token.
  torch::Tensor forward(const torch::Tensor& input) {
    const auto places = torch::arange(input.size(1), input.options());
    auto x = dropout->forward(tokens->forward(input) + positions->forward(places));
    for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
    return torch::linear(norm->forward(x), options.tied ? tokens->weight : scores->weight);
  }

  TransformerOptions options;
  torch::nn::Embedding tokens, positions;
  torch::nn::Dropout dropout;
  torch::nn::LayerNorm norm;
  torch::nn::ModuleList blocks;
  torch::nn::Linear scores{nullptr};  // if they are not tied
};
TORCH_MODULE(Transformer);
