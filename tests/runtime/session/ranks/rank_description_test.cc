// What Session::describe() prints about each rank.
#include <fmt/format.h>
#include <torch/torch.h>
#include <unistd.h>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "rank_session.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
using namespace rank_session;

// `words` must be in each rank's block.
void describe_prints_every_rank(int count, const char* device, const std::vector<const char*>& words) {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(count, [&]() -> int {
    auto session = start(folder.path(), "described", "never", device);
    torch::nn::Linear net(2, 1);
    net->to(session.device());
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05));
    auto pipeline = session.pipeline(net, optimizer, {Ddp(), Amp(Precision::bf16)});
    const std::string text = session.describe();
    if (text.empty() != (session.rank() != 0)) return 3;  // only rank 0 has it
    return session.finish();
  });
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  std::size_t at = 0;
  for (int rank = 0; rank < count; ++rank) {
    INFO("rank " << rank << " of " << ended[0].text);
    CHECK(ended[static_cast<std::size_t>(rank)].code == 0);
    const std::size_t found =
        ended[0].text.find(fmt::format("rank {} of {}, local {}, on {}, pid ", rank, count, rank, host));
    REQUIRE(found != std::string::npos);
    CHECK(found >= at);
    at = found;
    const std::string block = ended[0].text.substr(at, ended[0].text.find("rank ", at + 5) - at);
    const std::string own = device == std::string("cuda") ? fmt::format("cuda:{},", rank) : std::string("cpu\n");
    CHECK(block.find("device     " + own) != std::string::npos);
    for (const char* word : words) {
      INFO(word);
      CHECK(block.find(word) != std::string::npos);
    }
  }
  for (std::size_t other = 1; other < ended.size(); ++other) CHECK(ended[other].text.find("pid ") == std::string::npos);
}

}  // namespace

TEST_CASE("describe_prints_a_block_for_each_rank_in_order", "[full]") {
  describe_prints_every_rank(
      3, "cpu",
      {" in use by this process, ", " available", "computes   in bf16, ", " threads", "Holdfast 0.", "LibTorch 2."});
}

TEST_CASE("describe_prints_each_ranks_gpu", "[gpu]") {
  if (!ranks::are_on_two_gpus()) return;
  describe_prints_every_rank(
      2, "cuda", {"compute capability ", " (driver ", "  GPU        ", " free, ", " % busy", "computes   in bf16, "});
}
