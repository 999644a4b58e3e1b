// The number of ranks changes from start to start, and each start is killed somewhere. Every sample of every epoch is
// trained on exactly once, global batches stay the same, and training ends in the state of one uninterrupted rank.
#include <fcntl.h>
#include <torch/torch.h>

#include <bit>
#include <iostream>
#include <map>
#include <random>

#include "chain.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast;
namespace F = torch::nn::functional;

constexpr std::size_t kSamples = 61;
constexpr std::uint64_t kBatch = 8, kEpochs = 3;

// A sample's number is in its data.
class Points : public torch::data::datasets::Dataset<Points> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    const double x = static_cast<double>(index);
    return {torch::tensor({x, std::sin(x), std::cos(x / 3)}, torch::kDouble),
            torch::tensor({std::cos(x)}, torch::kDouble)};
  }
  std::optional<std::size_t> size() const override { return kSamples; }
};

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) {
    auto y = out->forward(torch::tanh(in->forward(x.narrow(1, 1, 2))));
    // Few samples use a part of the model of their own: most batches, and most ranks, leave it unused.
    const auto rare = x.select(1, 0).remainder(11).eq(3);
    if (rare.any().item<bool>()) y = y + rare.unsqueeze(1) * seldom->forward(x.narrow(1, 1, 2));
    return y;
  }
  torch::nn::Linear in{register_module("in", torch::nn::Linear(2, 5))};
  torch::nn::Linear seldom{register_module("seldom", torch::nn::Linear(2, 1))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(5, 1))};
};
TORCH_MODULE(Net);

// What a rank did in a step: which samples it was given. Written in one piece.
struct StepRecord {
  std::uint64_t step = 0;
  std::uint64_t samples = 0;  // one bit each
};
static_assert(kSamples <= 64);

struct Death {
  int rank = -1;           // -1: none
  std::uint64_t step = 0;  // of this start
  bool inside = false;     // inside a step, else between the update and its save
};

int train(const storage::Path& folder, const std::string& run, const char* device, int trace, const Death& death) {
  std::string program = "test", dir = "--holdfast.dir=" + folder.string();
  char* arguments[] = {program.data(), dir.data(), nullptr};
  char** argv = arguments;
  int argc = 2;
  auto session = Session::start(argc, argv, {.run = run, .seed = 5, .every = "1", .device = device});
  Net net;
  net->to(session.device(), torch::kDouble);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  Loader loader(Points().map(torch::data::transforms::Stack<>()), {.batch_size = kBatch});
  auto pipeline = session.pipeline(net, optimizer,
                                   {Ddp({.bucket_bytes = 64, .first_bucket_bytes = 32, .find_unused = true}),
                                    Accumulate(3), ClipGradNorm(0.5), Ema(0.9)});
  std::uint64_t here = 0;
  for (auto& batch : session.steps(loader, {.epochs = kEpochs})) {
    const bool dies = death.rank == session.rank() && death.step == ++here;
    pipeline.step(batch, [&] {
      const auto loss = F::mse_loss(net->forward(batch.data), batch.target);
      if (dies && death.inside) ::kill(::getpid(), SIGKILL);
      return loss;
    });
    StepRecord record{batch.number()};
    const auto numbers = batch.data.select(1, 0).cpu().contiguous();
    for (std::int64_t i = 0; batch.weight() > 0 && i < numbers.numel(); ++i) {
      record.samples |= std::uint64_t{1} << static_cast<int>(numbers[i].item<double>());
    }
    if (::write(trace, &record, sizeof record) != sizeof record) std::abort();
    if (dies) ::kill(::getpid(), SIGKILL);
  }
  for (const auto& parameter : net->parameters()) {
    const auto values = parameter.detach().cpu().flatten();
    for (std::int64_t i = 0; i < values.numel(); ++i) std::printf("weight %.17g\n", values[i].item<double>());
  }
  return session.finish();
}

struct ElasticRun {
  std::vector<ranks::Ended> ranks;
  std::vector<StepRecord> trace;
};

ElasticRun start(int count, const storage::Path& folder, const std::string& run, const char* device,
                 const Death& death) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ElasticRun ended;
  ended.ranks = ranks::run_sessions(count, [&] { return train(folder, run, device, ends[1], death); });
  ::close(ends[1]);
  StepRecord record;
  while (::read(ends[0], &record, sizeof record) == sizeof record) ended.trace.push_back(record);
  ::close(ends[0]);
  return ended;
}

std::vector<double> weights_in(const std::string& text) {
  std::vector<double> weights;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("weight ")) weights.push_back(std::stod(line.substr(7)));
  }
  return weights;
}

void check_same(const std::vector<double>& weights, const std::vector<double>& expected) {
  REQUIRE(weights.size() == expected.size());
  REQUIRE_FALSE(weights.empty());
  for (std::size_t i = 0; i < weights.size(); ++i) CHECK(std::abs(weights[i] - expected[i]) < 1e-12);
}

// The numbers of ranks of successive starts repeat `order`.
void check(unsigned seed, const std::vector<int>& order, const char* device) {
  const ScratchFolder folder;
  INFO("seed " << seed);
  const auto undisturbed = start(1, folder.path(), "undisturbed", device, {});
  INFO(undisturbed.ranks[0].text);
  REQUIRE(undisturbed.ranks[0].code == 0);
  std::map<std::uint64_t, std::uint64_t> expected;  // samples by step
  for (const StepRecord& record : undisturbed.trace) expected[record.step] = record.samples;
  std::map<int, std::uint64_t> seen;
  for (const auto& [step, samples] : expected) {
    CHECK((std::popcount(samples) == kBatch || std::popcount(samples) == kSamples % kBatch));
    for (int i = 0; i < static_cast<int>(kSamples); ++i) seen[i] += samples >> i & 1;
  }
  for (const auto& [sample, times] : seen) REQUIRE(times == kEpochs);

  for (const auto& rank : start(order[0], folder.path(), "undisturbed with several", device, {}).ranks) {
    check_same(weights_in(rank.text), weights_in(undisturbed.ranks[0].text));
  }

  std::mt19937 random(seed);
  std::map<std::uint64_t, std::uint64_t> done;
  int starts = 0, kills = 0;
  for (;; ++starts) {
    REQUIRE(starts < 100);
    const int count = order[static_cast<std::size_t>(starts) % order.size()];
    Death death{static_cast<int>(random() % static_cast<unsigned>(count)), 1 + random() % 4, random() % 2 == 0};
    const auto ended = start(count, folder.path(), "elastic", device, death);
    INFO("start " << starts << " with " << count << " ranks, of which " << death.rank << " dies in step " << death.step
                  << " of it");
    // Whole steps of this start: the samples of all ranks together.
    std::map<std::uint64_t, std::pair<int, std::uint64_t>> steps;
    for (const StepRecord& record : ended.trace) {
      auto& [parts, samples] = steps[record.step];
      ++parts;
      CHECK((samples & record.samples) == 0);
      samples |= record.samples;
    }
    for (const auto& [step, given] : steps) {
      INFO("step " << step);
      if (given.first < count) continue;
      CHECK(given.second == expected.at(step));
      done[step] = given.second;
    }
    bool over = true;
    const int kills_before = kills;
    std::string said;
    for (const auto& rank : ended.ranks) {
      REQUIRE((rank.code == 0 || rank.code == 1 || rank.code == -SIGKILL));
      kills += rank.code == -SIGKILL;
      over = over && rank.code == 0;
      said += rank.text;
    }
    INFO(said);
    REQUIRE((over || kills > kills_before));  // a start ends early only by a kill
    if (!over) continue;
    for (const auto& rank : ended.ranks) check_same(weights_in(rank.text), weights_in(undisturbed.ranks[0].text));
    break;
  }
  CHECK(done.size() == expected.size());
  std::cout << "elastic, seed " << seed << ": starts=" << starts + 1 << " kills=" << kills << " steps=" << done.size()
            << " samples_seen_wrongly=0\n";
}

const std::vector<int> kOrder{4, 2, 3, 1};

}  // namespace

TEST_CASE("the_number_of_ranks_may_change_at_any_step_without_losing_or_repeating_a_sample", "[full]") {
  for (const unsigned seed : {1u, 4u}) check(seed, kOrder, "cpu");
}

TEST_CASE("the_number_of_ranks_may_change_many_times", "[long]") {
  for (unsigned seed = 5; seed < 25; ++seed) check(seed, kOrder, "cpu");
}

TEST_CASE("the_number_of_gpus_may_change_at_any_step", "[gpu]") {
  if (ranks::are_on_two_gpus()) check(1, {2, 1}, "cuda");
}
