// Inference over a list of inputs on any number of ranks: split, compute, gather in order. The output is identical to
// the byte for every number of ranks. Here the inputs are lines of text; each gets the line that is most like it.
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

// Embeds a text as the mean of the random vectors of its three-byte pieces. Nothing is trained. Random projections
// preserve distances (Johnson and Lindenstrauss, 1984), so texts with many common pieces lie close together.
struct EmbedderImpl : torch::nn::Module {
  torch::Tensor forward(const std::string& text) {
    std::vector<std::int64_t> pieces;
    const std::string framed = "^" + text + "$$";
    for (std::size_t i = 0; i + 3 <= framed.size(); ++i) {
      std::int64_t piece = 0;
      for (const char byte : framed.substr(i, 3)) piece = piece * 257 + static_cast<unsigned char>(byte);
      pieces.push_back(piece % kBuckets);
    }
    const auto mean =
        vectors->forward(torch::tensor(pieces, vectors->weight.options().dtype(torch::kLong)).unsqueeze(0));
    return torch::nn::functional::normalize(mean).squeeze(0);
  }
  static constexpr std::int64_t kBuckets = 65521, kWidth = 64;
  torch::nn::EmbeddingBag vectors{register_module("vectors", torch::nn::EmbeddingBag(kBuckets, kWidth))};
};
TORCH_MODULE(Embedder);

std::vector<std::string> read_lines(const std::string& path) {
  if (path.empty()) {
    return {"the cat sat on the mat",           "a cat is sitting on the mat",
            "stocks fell sharply on Monday",    "shares fell sharply on Tuesday",
            "the train to Paris leaves at ten", "the train from Paris comes at ten",
            "water boils at a hundred degrees", "at sea water boils at a hundred degrees",
            "nothing like the others"};
  }
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (!file.eof()) throw holdfast::Error(holdfast::storage::StatusCode::invalid, "--lines: cannot read " + path);
  return lines;
}

int main(int argc, char** argv) {
  // Seeds all ranks alike, so each makes the same model.
  auto session = holdfast::Session::start(argc, argv, {.run = "batch_inference", .seed = 1});

  std::string file;
  CLI::App app(
      "Finds for each line of a text the line most like it, on any number of ranks. Holdfast's own options: "
      "--holdfast.help.");
  app.add_option("--lines", file, "Text file with one input per line (default: some examples)");
  CLI11_PARSE(app, argc, argv);

  const torch::NoGradGuard no_grad;
  Embedder embedder;
  embedder->to(session.device());
  // One rank reads the file and all get the lines, so the file is needed on one host only.
  const auto lines = session.on_main([&] { return read_lines(file); });

  std::vector<std::vector<float>> mine;
  for (const std::string& line : session.split(lines)) {
    const auto vector = embedder->forward(line).cpu();
    mine.emplace_back(vector.data_ptr<float>(), vector.data_ptr<float>() + vector.numel());
  }
  const auto all = session.gather_in_order(mine);  // floats keep all their bits

  for (std::size_t i = 0; i < all.size(); ++i) {
    std::size_t nearest = i;
    double best = -2;
    for (std::size_t j = 0; j < all.size(); ++j) {
      double likeness = 0;
      for (std::size_t k = 0; k < all[i].size(); ++k) likeness += static_cast<double>(all[i][k]) * all[j][k];
      if (j != i && likeness > best) {
        best = likeness;
        nearest = j;
      }
    }
    if (nearest != i) session.print("{:.6f}  {}  |  {}\n", best, lines[i], lines[nearest]);
  }
  return session.finish();
}
