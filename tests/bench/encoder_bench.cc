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
#include "encoder/loops.h"
#include "encoder/answers.h"
#include "encoder/settings.h"
#include "holdfast/holdfast.h"

namespace {

using namespace encoder_bench;
using nlohmann::json;

<<<<<<< HEAD
constexpr std::uint64_t kSeed = 1;
constexpr double kLearningRate = 1e-5;  // small: the power that multipliers use depends on the numbers

[[noreturn]] void refuse(const std::string& sentence) {
  std::fprintf(stderr, "encoder_bench: %s\n", sentence.c_str());
  std::exit(2);
}

void answer(const json& what) { std::cout << "bench " << what.dump() << std::endl; }

double milliseconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

// ---------------------------------------------------------------------------------------------------------------------
// Settings

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

const Words<bool> kNoOrYes{{"0", false}, {"1", true}};
const Words<bool> kDevice{{"cpu", false}, {"cuda", true}};
const Words<holdfast::Compress> kCompress{
    {"none", holdfast::Compress::none}, {"bf16", holdfast::Compress::bf16}, {"fp16", holdfast::Compress::fp16}};

Settings read_settings(int argc, char** argv) {
  Settings s;
  const auto integer = [](std::int64_t& value) {
    return [&value](const std::string& text) { value = std::atoll(text.c_str()); };
  };
  const auto mebibytes = [](std::int64_t& bytes) {
    return
        [&bytes](const std::string& text) { bytes = static_cast<std::int64_t>(std::atof(text.c_str()) * (1 << 20)); };
  };
  const auto choice = [](auto& value, const auto& words) {
    return [&value, &words](const std::string& text) {
      const auto found = std::find_if(words.begin(), words.end(), [&](const auto& word) { return word.first == text; });
      if (found == words.end()) refuse(text + " is no choice");
      value = found->second;
    };
  };
  const std::map<std::string, std::function<void(const std::string&)>> known{
      {"layers", integer(s.model.layers)},
      {"width", integer(s.model.width)},
      {"heads", integer(s.model.heads)},
      {"feed_forward", integer(s.model.feed_forward)},
      {"tokens", integer(s.model.context)},
      {"batch", integer(s.batch)},
      {"bucket_mb", mebibytes(s.ddp.bucket_bytes)},
      {"first_bucket_mb", mebibytes(s.ddp.first_bucket_bytes)},
      {"compress", choice(s.ddp.compress, kCompress)},
      {"find_unused", choice(s.ddp.find_unused, kNoOrYes)},
      {"mark_last_gradient", choice(s.mark_last_gradient, kNoOrYes)},
      {"device", choice(s.cuda, kDevice)},
      {"folder", [&](const std::string& text) { s.folder = text; }},
  };
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto equals = argument.find('=');
    const auto setting = known.find(argument.substr(0, equals));
    if (equals == std::string::npos || setting == known.end()) refuse(argument + " is no setting");
    setting->second(argument.substr(equals + 1));
  }
  return s;
}

// ---------------------------------------------------------------------------------------------------------------------
// Timing

void synchronize(c10::Device device) {
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

// A point in the order of the device's work; making one does not wait.
class Mark {
 public:
  explicit Mark(c10::Device device) : time_(Clock::now()) {
    if (!device.is_cuda()) return;
    event_ = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // with timing
    event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  /// REQUIRES: the device has passed both.
  double milliseconds_to(const Mark& later) const {
    return event_ ? event_->elapsedTime(*later.event_) : milliseconds_between(time_, later.time_);
  }

 private:
  Clock::time_point time_;
  std::shared_ptr<c10::Event> event_;
};

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Executes the driver's orders, one step of the training loop at a time, and keeps the times of the steps.
class Rounds {
 public:
  using Job = std::function<json(const std::string& order)>;
  /// `other` answers all orders except rounds.
  Rounds(c10::Device device, Job other) : device_(device), other_(std::move(other)) {}

  void ready(const torch::nn::Module& net) {
    std::int64_t parameters = 0;
    for (const auto& parameter : net.parameters()) parameters += parameter.numel();
    answer({{"ready", true}, {"parameters", parameters}});
  }

  /// Call between steps. False: leave the loop.
  bool another_step() {
    for (std::string line; done_ == warm_ + steps_;) {
      if (steps_ > 0) report();
      steps_ = warm_ = done_ = 0;
      if (!std::getline(std::cin, line) || line == "quit") return false;
      std::istringstream order(line);
      std::string word, how;
      order >> word;
      if (word == "round") {
        order >> warm_ >> steps_ >> how;
        exchanges_ = how != "local";
      } else {
        answer(other_(line));
        leave_memory();
      }
    }
    if (++done_ == warm_ + 1) start_timing();
    if (done_ > warm_) timed_.push_back({Mark(device_), {}, {}, {}, {}});
    return true;
  }
  /// Whether this round's gradients are averaged over the ranks.
  bool exchanges() const { return exchanges_; }

  // Called within a step.
  void after_forward(const at::Tensor& loss) {
    loss_ = loss.detach();
    if (is_timed()) timed_.back().forward.emplace(device_);
  }
  void after_backward() {
    if (is_timed()) timed_.back().backward.emplace(device_);
  }
  void after_update() {
    if (is_timed()) timed_.back().update.emplace(device_);
  }
  /// Marks the time when the last gradient is computed: the rest of backward is waiting for the exchange.
  void mark_last_gradient_of(const at::Tensor& first_parameter) {
    first_parameter.register_hook([this](const at::Tensor&) {
      if (is_timed()) timed_.back().last_gradient.emplace(device_);
    });
  }

 private:
  struct StepMarks {
    Mark begin;
    std::optional<Mark> forward, last_gradient, backward, update;  // the ends of these phases
  };

  bool is_timed() const { return done_ > warm_ && !timed_.empty(); }

  void start_timing() {
    synchronize(device_);
    if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->resetPeakStats(device_.index());
    timed_.clear();
    begin_ = Clock::now();
  }

  void report() {
    const Mark end(device_);
    const auto issued = Clock::now();
    synchronize(device_);
    const auto count = static_cast<double>(steps_);
    json times = {{"wall", milliseconds_between(begin_, Clock::now()) / count},
                  {"host", milliseconds_between(begin_, issued) / count}};
    for (std::size_t i = 0; i < timed_.size(); ++i) {
      const StepMarks& step = timed_[i];
      times["step"].push_back(step.begin.milliseconds_to(i + 1 < timed_.size() ? timed_[i + 1].begin : end));
      times["forward"].push_back(step.begin.milliseconds_to(*step.forward));
      times["backward"].push_back(step.forward->milliseconds_to(*step.backward));
      if (step.last_gradient) times["tail"].push_back(step.last_gradient->milliseconds_to(*step.backward));
      times["update"].push_back(step.backward->milliseconds_to(*step.update));
    }
    json round = {{"times", times}, {"loss", loss_.item<double>()}};
    if (device_.is_cuda()) {
      const auto memory = c10::getDeviceAllocator(device_.type())->getDeviceStats(device_.index());
      round["peak_bytes"] = memory.allocated_bytes[0].peak;  // [0]: all pools together
    }
    timed_.clear();
    loss_ = at::Tensor();
    leave_memory();
    answer(round);
  }

  // Other groups take their turns on the same device.
  void leave_memory() const {
    if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->emptyCache();
  }

  c10::Device device_;
  Job other_;
  std::uint64_t warm_ = 0, steps_ = 0, done_ = 0;
  bool exchanges_ = true;
  std::vector<StepMarks> timed_;
  Clock::time_point begin_;
  at::Tensor loss_;
};

// ---------------------------------------------------------------------------------------------------------------------
// Common to both

struct Batch {
  at::Tensor tokens, targets;
};

Batch make_batch(const Settings& s, int rank, c10::Device device) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(kSeed + 1 + static_cast<std::uint64_t>(rank));
  const auto draw = [&] {
    return at::randint(s.model.vocabulary, {s.batch, s.model.context}, generator, at::kLong).to(device);
  };
  return {draw(), draw()};
}

at::Tensor loss_of(Transformer& net, const Batch& batch) {
  return torch::nn::functional::cross_entropy(net->forward(batch.tokens).flatten(0, 1), batch.targets.flatten());
}

// ---------------------------------------------------------------------------------------------------------------------
// Holdfast

int run_holdfast(const Settings& s, int argc, char** argv) {
  using namespace holdfast;
  SessionOptions options;
  options.dir = s.folder;
  options.run = "bench";
  options.seed = kSeed;
  options.every = "never";
  options.device = s.cuda ? "cuda" : "cpu";
  options.fresh = true;
  auto session = Session::start(argc, argv, options);
  Transformer net(s.model);
  net->to(session.device());
  FusedAdamW optimizer(net->parameters(), torch::optim::AdamWOptions(kLearningRate));
  auto pipeline = session.pipeline(net, optimizer, {Ddp(s.ddp), Amp(Precision::bf16)});
  const Batch batch = make_batch(s, session.rank(), session.device());
  Rounds rounds(session.device(), [](const std::string& order) -> json { refuse(order + " is no order"); });
  if (s.mark_last_gradient) rounds.mark_last_gradient_of(net->tokens->weight);
  session.restore();
  at::Tensor first = at::ones({1}, at::TensorOptions(session.device()));
  session.group().all_reduce(first);  // NCCL connects here instead of in a round
  rounds.ready(*net);
  for (auto& step : session.steps({.count = 1'000'000'000})) {
    if (!rounds.another_step()) break;
    const at::Tensor loss = pipeline.forward(step, [&] { return loss_of(net, batch); });
    rounds.after_forward(loss);
    pipeline.backward(loss);
    rounds.after_backward();
    pipeline.update();
    rounds.after_update();
  }
  // No finish(): it would write gigabytes that are not needed.
  holdfast::detail::GroupControl(session.group()).close();
  std::_Exit(0);
}

// ---------------------------------------------------------------------------------------------------------------------
// By hand

class Autocast {
 public:
  explicit Autocast(c10::DeviceType device) : device_(device) {
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, false);
  }

 private:
  c10::DeviceType device_;
};

c10::intrusive_ptr<c10d::ProcessGroup> join(const holdfast::RankEnvironment& ranks, c10::Device device) {
  c10d::TCPStoreOptions options;
  options.port = ranks.port;
  options.isServer = ranks.rank == 0;
  options.numWorkers = static_cast<std::size_t>(ranks.world_size);
  const auto store = c10::make_intrusive<c10d::TCPStore>(ranks.address, options);
  const auto named = [&](const char* name) { return c10::make_intrusive<c10d::PrefixStore>(name, store); };
  auto group = c10::make_intrusive<c10d::ProcessGroup>(named("group"), ranks.rank, ranks.world_size);
  if (device.is_cuda()) {
#ifdef USE_C10D_NCCL
    group->setBoundDeviceId(device);
    group->setBackend(device.type(), c10d::ProcessGroup::BackendType::NCCL,
                      c10::make_intrusive<c10d::ProcessGroupNCCL>(named("nccl"), ranks.rank, ranks.world_size));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
#else
    refuse("this build has no NCCL, so several ranks cannot use GPUs");
#endif
  } else {
    auto options_of_gloo = c10d::ProcessGroupGloo::Options::create();
    options_of_gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(ranks.address));
    group->setBackend(device.type(), c10d::ProcessGroup::BackendType::GLOO,
                      c10::make_intrusive<c10d::ProcessGroupGloo>(named("gloo"), ranks.rank, ranks.world_size,
                                                                  std::move(options_of_gloo)));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  }
  return group;
}

// Buckets as DistributedDataParallel makes them: from the last parameter to the first; the Reducer later rebuilds them
// in the order in which gradients arrive.
std::unique_ptr<c10d::Reducer> make_reducer(const std::vector<at::Tensor>& parameters, const Settings& s,
                                            c10::intrusive_ptr<c10d::ProcessGroup> group) {
  const std::vector<bool> sparse(parameters.size(), false);
  const std::int64_t size = s.ddp.bucket_bytes > 0 ? s.ddp.bucket_bytes : std::int64_t{25} << 20;  // Python's default
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
      parameters, {static_cast<std::size_t>(s.ddp.first_bucket_bytes), static_cast<std::size_t>(size)}, sparse));
  std::reverse(buckets.begin(), buckets.end());
  return std::make_unique<c10d::Reducer>(
      parameters, std::move(buckets), std::move(group), sparse, size, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true, std::unordered_map<std::size_t, std::string>(), s.ddp.first_bucket_bytes,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<std::int64_t>());
}

struct AdamW {
  explicit AdamW(const std::vector<at::Tensor>& given) : parameters(given) {
    for (const at::Tensor& parameter : parameters) {
      means.push_back(at::zeros_like(parameter));
      squares.push_back(at::zeros_like(parameter));
      steps.push_back(at::zeros({}, parameter.options().requires_grad(false)));
    }
  }
  void step() {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
    at::_foreach_add_(steps, 1);
    const torch::optim::AdamWOptions defaults;
    const auto [beta1, beta2] = defaults.betas();
    at::_fused_adamw_(parameters, gradients, means, squares, {}, steps, kLearningRate, beta1, beta2,
                      defaults.weight_decay(), defaults.eps(), /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
  }

  std::vector<at::Tensor> parameters, means, squares, steps;
};

// The parts of an exchange, each alone on the device: their cost if nothing overlapped with them.
json exchange_alone(const c10d::Reducer& reducer, c10d::ProcessGroup& group, c10::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> buckets, halves, views, gradients;
  std::int64_t elements = 0;
  for (const auto& bucket : reducer.get_grad_buckets(/*return_zero_tensors=*/false)) {
    buckets.push_back(bucket.getBuffer());
    halves.push_back(bucket.getBuffer().to(at::kBFloat16));
    elements += bucket.getBuffer().numel();
    for (const at::Tensor& view : bucket.getGradients()) {
      views.push_back(view);
      gradients.push_back(at::ones_like(view));
    }
  }
  const std::vector<at::Tensor> whole{at::zeros({elements}, buckets.front().options())};
  const at::Tensor share = at::scalar_tensor(1.0 / group.getSize());
  const auto timed = [&](const auto& act) {
    constexpr int kWarm = 3, kRepeats = 11;
    std::vector<Mark> marks;
    for (int i = 0; i < kWarm; ++i) act();
    synchronize(device);
    for (int i = 0; i < kRepeats; ++i) {
      marks.emplace_back(device);
      act();
    }
    marks.emplace_back(device);
    synchronize(device);
    std::vector<double> times;
    for (std::size_t i = 1; i < marks.size(); ++i) times.push_back(marks[i - 1].milliseconds_to(marks[i]));
    return median_of(times);
  };
  const auto all_reduce = [&](const std::vector<at::Tensor>& tensors, c10d::ReduceOp how) {
    c10d::AllreduceOptions options;
    options.reduceOp = how;
    std::vector<c10::intrusive_ptr<c10d::Work>> under_way;
    for (const at::Tensor& tensor : tensors) {
      std::vector<at::Tensor> one{tensor};
      under_way.push_back(group.allreduce(one, options));
    }
    for (const auto& work : under_way) work->wait();
  };
  const auto each = [](const std::vector<at::Tensor>& tensors, const auto& act) {
    for (std::size_t i = 0; i < tensors.size(); ++i) act(i);
  };
  json parts = json::array();
  const auto part = [&](const char* what, const auto& act) { parts.push_back({{"part", what}, {"ms", timed(act)}}); };
  for (const at::Tensor& bucket : buckets) bucket.zero_();  // so that sums stay 0
  for (const at::Tensor& half : halves) half.zero_();
  part("all-reduce, bucket after bucket", [&] { all_reduce(buckets, c10d::ReduceOp::SUM); });
  if (device.is_cuda()) {
    part("the same with NCCL's own mean", [&] { all_reduce(buckets, c10d::ReduceOp::AVG); });
  }
  part("the same in bf16", [&] { all_reduce(halves, c10d::ReduceOp::SUM); });
  part("all-reduce of one tensor of all bytes", [&] { all_reduce(whole, c10d::ReduceOp::SUM); });
  part("gradients divided and copied to the buckets",
       [&] { each(views, [&](std::size_t i) { at::mul_out(views[i], gradients[i], share); }); });
  part("buckets divided in place", [&] { each(buckets, [&](std::size_t i) { buckets[i].mul_(share); }); });
  part("buckets divided and converted to bf16",
       [&] { each(buckets, [&](std::size_t i) { at::mul_out(halves[i], buckets[i], share); }); });
  part("bf16 converted back", [&] { each(buckets, [&](std::size_t i) { buckets[i].copy_(halves[i]); }); });
  return {{"parts", parts}, {"buckets", buckets.size()}, {"bytes", elements * 4}};
}

int run_plain(const Settings& s) {
  const auto ranks = holdfast::read_rank_environment();
  const c10::Device device =
      s.cuda ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(ranks.local_rank)) : c10::Device(c10::kCPU);
  if (s.cuda) c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
  torch::manual_seed(kSeed);
  Transformer net(s.model);
  net->to(device);
  const std::vector<at::Tensor> parameters = net->parameters();
  AdamW optimizer(parameters);
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<c10d::Reducer> reducer;
  if (ranks.world_size > 1) {
    group = join(ranks, device);
    reducer = make_reducer(parameters, s, group);
    std::vector<at::Tensor> first{at::ones({1}, at::TensorOptions(device))};
    group->allreduce(first)->wait();  // NCCL connects here instead of in a round
  }
  const Batch batch = make_batch(s, ranks.rank, device);
  Rounds rounds(device, [&](const std::string& order) -> json {
    if (order != "exchange" || !reducer) refuse(order + " is no order");
    return exchange_alone(*reducer, *group, device);
  });
  if (s.mark_last_gradient) rounds.mark_last_gradient_of(net->tokens->weight);
  rounds.ready(*net);
  while (rounds.another_step()) {
    const bool exchanges = reducer && rounds.exchanges();
    if (exchanges && reducer->should_rebuild_buckets()) reducer->rebuild_buckets();
    at::Tensor loss;
    {
      const Autocast autocast(device.type());
      loss = loss_of(net, batch);
    }
    rounds.after_forward(loss);
    if (exchanges) reducer->prepare_for_backward({});
    loss.backward();
    rounds.after_backward();
    optimizer.step();
    rounds.after_update();
  }
  std::_Exit(0);  // the ranks end together; none of their data is kept
}

=======
>>>>>>> h-long
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
