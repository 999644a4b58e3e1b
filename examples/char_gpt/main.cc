// Trains a small GPT on a text, character by character, and then generates text. You can kill it at any moment and run
// the same command again. With more ranks (holdfast launch --nproc 4 char_gpt) it trains the same model on the same
// batches.
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../ranges.h"
#include "text.h"
#include "transformer.h"

namespace F = torch::nn::functional;
using torch::data::transforms::Stack;

torch::Tensor mean_loss(Transformer& net, const torch::data::Example<>& batch, torch::Device device) {
  const auto scores = net->forward(batch.data.to(device));
  return F::cross_entropy(scores.flatten(0, 1), batch.target.to(device).flatten());
}

// `length` characters after `text`, drawn with the probabilities that the model gives them.
std::string write(Transformer& net, const Vocabulary& vocabulary, const std::string& text, int length,
                  torch::Device device, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  // A separate generator, because drawing from the default one would change how a session continues to train.
  auto generator = at::detail::createCPUGenerator(seed);
  auto numbers = vocabulary.numbers(text);
  for (int i = 0; i < length; ++i) {
    const auto seen = numbers.slice(0, std::max<std::int64_t>(0, numbers.numel() - net->options.context));
    const auto scores = net->forward(seen.unsqueeze(0).to(device)).select(1, -1).squeeze(0);
    const auto next = torch::softmax(scores.to(torch::kFloat) / 0.8, 0).cpu().multinomial(1, false, generator);
    numbers = torch::cat({numbers, next});
  }
  return vocabulary.text(numbers);
}

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "char_gpt", .seed = 42, .every = "200,10min"});

  TransformerOptions shape;
  std::string file, prompt = "When ";
  std::uint64_t epochs = 10, windows = 1024, warmup = 50, accumulate = 1;
  std::int64_t batch_size = 32, synthetic = 0;
  double learning_rate = 2e-3, decay = 0.99;
  int workers = 0, write_length = 300;
  bool untied = false;
  CLI::App app(
      "Trains a small GPT on a text, character by character, and then generates text. Kill it at any moment and run "
      "the same command again. Holdfast's own options, such as precision and device: --holdfast.help.");
  app.add_option("--text", file, "Text file to train on (default: seven sonnets of Shakespeare)")
      ->check(CLI::ExistingFile);
  app.add_option("--synthetic", synthetic,
                 "Train on random tokens from a vocabulary of this size instead of a text, for measurements")
      ->check(kPositive);
  app.add_option("--layers", shape.layers, "Number of transformer blocks")->capture_default_str()->check(kPositive);
  app.add_option("--width", shape.width, "Model dimension")->capture_default_str()->check(kPositive);
  app.add_option("--heads", shape.heads, "Attention heads")->capture_default_str()->check(kPositive);
  auto* feed_forward = app.add_option("--feed-forward", shape.feed_forward,
                                      "Width of the feed-forward layers (default: 4 times --width)")
                           ->check(kPositive);
  app.add_option("--context", shape.context, "Tokens per window")->capture_default_str()->check(kPositive);
  app.add_option("--dropout", shape.dropout, "Dropout probability")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.99));
  app.add_flag("--untied", untied, "Score tokens with separate weights instead of the embeddings");
  app.add_option("--epochs", epochs, "Number of epochs")->capture_default_str()->check(kPositive);
  app.add_option("--windows", windows, "Windows per epoch")->capture_default_str()->check(kPositive);
  app.add_option("--batch-size", batch_size, "Windows per step, over all ranks")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--accumulate", accumulate, "Steps per update of the parameters")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--learning-rate", learning_rate, "Learning rate of AdamW after the warm-up")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--warmup", warmup, "Updates over which the rate rises; afterwards it falls as a cosine")
      ->capture_default_str()
      ->check(kNotNegative);
  app.add_option("--ema", decay, "Decay of the averaged weights, which are used for evaluation and generation")
      ->capture_default_str();
  app.add_option("--workers", workers, "Threads that prepare windows in advance")
      ->capture_default_str()
      ->check(kNotNegative);
  app.add_option("--prompt", prompt, "Text that the model continues")->capture_default_str();
  app.add_option("--write", write_length, "Characters to generate at the end")
      ->capture_default_str()
      ->check(kNotNegative);
  std::string text;
  std::int64_t learnt = 0;  // number of its characters used for training; the rest, a tenth, is kept for evaluation
  app.callback([&] {
    if (shape.width % shape.heads != 0) throw CLI::ValidationError("--heads", "must divide --width");
    try {
      text = file.empty() ? kSonnets : read_text(file);
    } catch (const std::runtime_error& error) {
      throw CLI::ValidationError("--text", error.what());
    }
    // Check this before the training instead of after it.
    if (synthetic == 0 && write_length > 0) {
      if (prompt.empty()) throw CLI::ValidationError("--prompt", "needs at least one character");
      try {
        (void)Vocabulary(text).numbers(prompt);
      } catch (const std::runtime_error& error) {
        throw CLI::ValidationError("--prompt", error.what());
      }
    }
    learnt = static_cast<std::int64_t>(text.size()) * 9 / 10;
    const auto kept = static_cast<std::int64_t>(text.size()) - learnt;
    if (synthetic == 0 && kept <= shape.context) {
      throw CLI::ValidationError("--context", "must be below the " + std::to_string(kept) +
                                                  " characters of the text's last tenth, which are kept for "
                                                  "evaluation; choose a longer text with --text");
    }
  });
  CLI11_PARSE(app, argc, argv);

  const Vocabulary vocabulary(text);
  const auto numbers = vocabulary.numbers(text);
  holdfast::Loader train((synthetic > 0 ? Windows::synthetic(synthetic, shape.context, windows)
                                        : Windows::at_random(numbers.slice(0, 0, learnt), shape.context, windows))
                             .map(Stack<>()),
                         {.batch_size = batch_size, .workers = workers});
  holdfast::Loader test((synthetic > 0 ? Windows::synthetic(synthetic, shape.context, 1)
                                       : Windows::in_order(numbers.slice(0, learnt), shape.context))
                            .map(Stack<>()),
                        {.batch_size = batch_size, .shuffle = false});

  const torch::Device device = session.device();
  shape.vocabulary = synthetic > 0 ? synthetic : vocabulary.size();
  shape.tied = !untied;
  if (feed_forward->empty()) shape.feed_forward = 4 * shape.width;
  Transformer net(shape);
  net->to(device);
  holdfast::FusedAdamW optimizer(net->parameters(),
                                 torch::optim::AdamWOptions(learning_rate).betas({0.9, 0.95}).weight_decay(0.1));
  const std::uint64_t updates = epochs * ((train.batches_per_epoch() + accumulate - 1) / accumulate);
  auto pipeline =
      session.pipeline(net, optimizer,
                       {
                           holdfast::Ddp(),
                           holdfast::Amp(),
                           holdfast::Accumulate(accumulate),
                           holdfast::ClipGradNorm(1.0),
                           holdfast::LrSchedule::warmup_cosine(std::min(warmup, updates), updates, /*floor=*/0.1),
                           holdfast::Ema(decay),
                       });
  auto& average = pipeline.stage<holdfast::Ema>();
  std::int64_t parameters = 0;
  for (const auto& parameter : net->parameters()) parameters += parameter.numel();
  session.print("{:.2f} M parameters\n", static_cast<double>(parameters) * 1e-6);

  // Nats per character of the text kept for evaluation.
  const auto evaluate = [&] {
    const torch::NoGradGuard no_grad;
    const auto averaged = average.swap_in();  // until the end of this scope
    net->eval();
    double loss = 0, count = 0;
    for (auto& batch : session.evaluate(test)) {
      const auto here = static_cast<double>(batch.data.numel());
      loss += here * mean_loss(net, batch, device).item<double>();
      count += here;
    }
    net->train();
    return session.sum(loss) / session.sum(count);
  };

  for (auto& epoch : session.epochs(train, epochs)) {
    const auto begun = std::chrono::steady_clock::now();
    std::int64_t tokens = 0;
    for (auto& batch : epoch) {
      pipeline.step(batch, [&] { return mean_loss(net, batch, device); });
      // Reading a loss waits for the GPU, so every tenth step is enough.
      if (batch.number() % 10 == 0) session.log({{"loss", pipeline.loss()}, {"lr", pipeline.lr()}});
      tokens += batch.data.numel();
    }
    if (session.stopping()) break;
    if (synthetic > 0) {
      const double loss = pipeline.loss();  // when it arrives, the GPU has finished the epoch
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
      session.print("epoch {}: loss {:.4f}, {:.0f} tokens/s\n", epoch.number() + 1, loss,
                    static_cast<double>(session.sum(tokens)) / took.count());
    } else {
      session.print("epoch {}: {:.4f} nats per character of the evaluation text\n", epoch.number() + 1, evaluate());
    }
  }

  if (!session.stopping() && synthetic == 0 && write_length > 0) {
    const auto averaged = average.swap_in();
    net->eval();
    session.print("\n{}\n", session.on_main(
                                [&] { return write(net, vocabulary, prompt, write_length, device, session.seed()); }));
  }
  return session.finish();
}
