#include "holdfast/runtime/ranks/group.h"

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>
#include <c10/core/DeviceGuard.h>
#include <cxxabi.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <mutex>
#include <new>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "process/detached_task.h"
#include "process/host_name.h"
#include "ranks/call_site.h"
#include "ranks/collective_fingerprint.h"
#include "ranks/rendezvous.h"
#include "ranks/transport.h"
#include "ranks/watchdog.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;

// How often a connecting rank checks whether all must stop.
constexpr std::chrono::milliseconds kLookWhileConnecting{20};

std::string type_of(const std::exception& error) {
  int status = 0;
  char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  std::string text = status == 0 ? name : typeid(error).name();
  std::free(name);
  return text;
}

std::string this_process() { return fmt::format("pid {} on {}", ::getpid(), host_name()); }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string to_bytes(const json& value) {
  std::string bytes;
  json::to_cbor(value, bytes);
  return bytes;
}

json from_bytes(const std::string& bytes) {
  try {
    return json::from_cbor(bytes);
  } catch (const json::exception&) {
    throw Error(StatusCode::corrupt,
                "received a malformed value from another rank; start the same build of the program on all hosts");
  }
}

std::string describe(const at::Tensor& tensor, std::size_t first_dimension = 0) {
  return fmt::format("a {} {} tensor [{}]", c10::DeviceTypeName(tensor.device().type(), /*lower_case=*/true),
                     c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes().slice(first_dimension), ", "));
}

// Every dtype can be moved as bytes, whichever dtypes the backend computes with.
at::Tensor bytes_of(const at::Tensor& tensor) {
  return tensor.resolve_conj().resolve_neg().contiguous().view({-1}).view(at::kByte);
}

// Gloo's own exceptions have a type that LibTorch does not export.
bool is_connection(const std::exception& error) {
  return dynamic_cast<const c10::DistError*>(&error) != nullptr ||
         std::string_view(error.what()).find("gloo") != std::string_view::npos;
}

// A moved tensor must be dense; `written`: and none of its elements may share memory.
void require_dense(const at::Tensor& tensor, bool written, const char* operation, const Group::Site& site) {
  const auto refuse = [&](const char* why) {
    throw Error(StatusCode::invalid, fmt::format("{} at {} {}", operation, text_of(site), why));
  };
  if (!tensor.defined()) refuse("was given an undefined tensor; every rank gives one of the same shape");
  if (tensor.layout() != at::kStrided) refuse("takes dense tensors; to_dense() makes one");
  if (written && at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    refuse("cannot write to a tensor whose elements share memory, as expand() makes it; clone() gives each its own");
  }
}

bool can_be_reduced(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kChar:
    case at::kByte:
    case at::kInt:
    case at::kLong:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct Group::Impl {
  RankEnvironment ranks;
  c10::Device device = c10::kCPU;
  c10::intrusive_ptr<c10d::Store> store;
  std::mutex connecting;
  std::unique_ptr<Transport> transport;  // none in a group of one
  std::unique_ptr<Watchdog> watchdog;
  bool closed = false;
  std::uint64_t unwatched = 0;  // operations
  std::mutex turn;
  std::string under_way;  // some thread's operation; empty: none

  // Lives during one operation. Another operation in that time comes from another thread, and their messages would mix.
  class Turn {
   public:
    Turn(Impl& group, const char* operation, const std::string& site) : group_(group) {
      std::unique_lock lock(group.turn);
      if (!group.under_way.empty()) {
        const std::string text = fmt::format(
            "rank {} calls {} at {} while another of its threads is in {}; one thread at a time calls a group's "
            "operations",
            group.ranks.rank, operation, site, group.under_way);
        lock.unlock();
        group.stop(text, group.ranks.rank);
      }
      group.under_way = fmt::format("{} at {}", operation, site);
    }
    ~Turn() {
      const std::lock_guard lock(group_.turn);
      group_.under_way.clear();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Impl& group_;
  };

  // Gloo waits forever for a rank that died while all connect. So another thread connects, and this one listens to the
  // watchdog.
  void connect() {
    auto opened = run_detached([ranks = ranks, store = store, device = device] {
      const c10::DeviceGuard on_device(device);
      return std::make_unique<Transport>(ranks, store, device);
    });
    while (opened.wait_for(kLookWhileConnecting) != std::future_status::ready) check();
    {
      auto made = opened.get();
      const std::lock_guard lock(connecting);
      transport = std::move(made);
    }
    check();
  }
  void interrupt() {
    const std::lock_guard lock(connecting);
    if (transport) transport->interrupt();
  }
  bool has_lost_connection() {
    const std::lock_guard lock(connecting);
    return transport && transport->has_lost_connection();
  }
  void check() const {
    if (!watchdog) return;
    if (auto fault = watchdog->fault()) throw RankFault(*fault);
  }
  std::optional<std::string> fault() const { return watchdog ? watchdog->fault() : std::nullopt; }
  std::uint64_t enter(const std::string& operation, const std::string& site) {
    return watchdog ? watchdog->enter(operation, site) : ++unwatched;
  }
  void leave() {
    if (watchdog) watchdog->leave();
  }
  [[noreturn]] void stop(const std::string& text, int origin) {
    if (watchdog) watchdog->fail(text, origin);
    throw RankFault(text);
  }
  // This rank's part of an operation threw. The others are in the middle of the operation.
  [[noreturn]] void stop_failed(const std::string& operation, const std::string& site, const std::exception& error) {
    stop(fmt::format("rank {} failed in {} at {}: {}", ranks.rank, operation, site, first_line(error.what())),
         ranks.rank);
  }
  // Throws the cause of a broken connection, if the watchdog finds it in time.
  void heed_verdict() const {
    if (auto fault = watchdog ? watchdog->verdict() : std::nullopt) throw RankFault(*fault);
  }
  // A call of c10d threw.
  [[noreturn]] void broke(const std::string& operation, const std::string& site, const std::exception& error) {
    heed_verdict();
    stop(fmt::format("rank {} lost its connection to another rank in {} at {}: {}", ranks.rank, operation, site,
                     first_line(error.what())),
         ranks.rank);
  }
  // Runs one operation of all ranks: compares their fingerprints, then calls `act`.
  template <class Act>
  std::vector<CollectiveFingerprint> together(const char* operation, const std::string& what, std::string value,
                                              const Site& site, const Act& act) {
    if (closed) throw Error(StatusCode::invalid, fmt::format("{} comes after the ranks agreed to end", operation));
    check();
    CollectiveFingerprint mine{0, operation, text_of(site), what, value.size(), std::move(value)};
    if (!transport) return {mine};
    const Turn turn_of_this_thread(*this, operation, mine.site);
    mine.sequence = enter(operation, mine.site);
    std::vector<CollectiveFingerprint> fingerprints;
    try {
      for (const std::string& wire : transport->exchange(encode(mine)))
        fingerprints.push_back(decode_fingerprint(wire));
      if (auto text = divergence(fingerprints)) stop(*text, -1);
      fetch_long_values(fingerprints, mine.value);
    } catch (const RankFault&) {
      throw;
    } catch (const Error& error) {
      stop_failed(operation, mine.site, error);
    } catch (const std::bad_alloc& error) {
      stop_failed(operation, mine.site, error);
    } catch (const std::exception& error) {
      broke(operation, mine.site, error);
    }
    try {
      act(fingerprints);
    } catch (const std::exception& error) {
      if (fault() || is_connection(error)) broke(operation, mine.site, error);
      stop_failed(operation, mine.site, error);
    }
    leave();
    check();
    return fingerprints;
  }
  std::vector<CollectiveFingerprint> together(const char* operation, const std::string& what, std::string value,
                                              const Site& site) {
    return together(operation, what, std::move(value), site, [](const std::vector<CollectiveFingerprint>&) {});
  }
  // Values that do not fit into a fingerprint follow it. A single one is broadcast; several are padded to the longest.
  void fetch_long_values(std::vector<CollectiveFingerprint>& fingerprints, const std::string& mine) {
    std::uint64_t longest = 0;
    std::vector<std::size_t> owners;
    for (std::size_t rank = 0; rank < fingerprints.size(); ++rank) {
      if (fingerprints[rank].value.size() == fingerprints[rank].bytes) continue;
      longest = std::max(longest, fingerprints[rank].bytes);
      owners.push_back(rank);
    }
    if (owners.empty()) return;
    if (owners.size() == 1) {
      CollectiveFingerprint& owner = fingerprints[owners.front()];
      owner.value = static_cast<int>(owners.front()) == ranks.rank ? mine : std::string(longest, '\0');
      transport->broadcast(owner.value, static_cast<int>(owners.front()));
      return;
    }
    std::string padded = mine;
    padded.resize(longest, '\0');
    auto all = transport->exchange(padded);
    for (const std::size_t rank : owners) {
      all[rank].resize(fingerprints[rank].bytes);
      fingerprints[rank].value = std::move(all[rank]);
    }
  }
};

Group::Group(const RankEnvironment& ranks, c10::Device device, GroupOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->ranks = ranks;
  impl_->device = device;
  if (ranks.world_size == 1) return;
  Transport::prepare(device);
  if (!options.say) options.say = [](const std::string& line) { std::fprintf(stderr, "holdfast: %s\n", line.c_str()); };
  if (!ranks.local_known)
    find_place_on_host(impl_->ranks, {options.join_within, options.say_waiting_after, options.say});
  impl_->store = join_store(ranks, Watchdog::kKey, Watchdog::first_heartbeat(), this_process(),
                            {options.join_within, options.say_waiting_after, options.say});
  WatchdogOptions watchdog;
  watchdog.rank = ranks.rank;
  watchdog.world_size = ranks.world_size;
  watchdog.store_port = ranks.port;
  watchdog.store_rank = ranks.launcher_has_store ? -1 : 0;
  watchdog.say_waiting_after = options.say_waiting_after;
  watchdog.silence = options.silence;
  watchdog.say = options.say;
  watchdog.interrupt = [impl = impl_.get()] { impl->interrupt(); };
  watchdog.has_lost_connection = [impl = impl_.get()] { return impl->has_lost_connection(); };
  try {
    if (options.watchdog) impl_->watchdog = std::make_unique<Watchdog>(*impl_->store, std::move(watchdog));
    impl_->connect();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    impl_->heed_verdict();
    throw Error(StatusCode::unreadable,
                fmt::format("rank {} cannot connect to the other ranks: {}", ranks.rank, first_line(error.what())));
  }
}

Group::~Group() {
  if (impl_->watchdog && !impl_->closed && !impl_->watchdog->fault()) {
    impl_->watchdog->fail(
        std::uncaught_exceptions() > 0
            ? fmt::format("rank {} was left by an exception before session.finish(); what that rank printed says which",
                          rank())
            : fmt::format("rank {} ended without session.finish()", rank()),
        rank());
  }
  impl_->watchdog.reset();
}

int Group::rank() const { return impl_->ranks.rank; }
int Group::world_size() const { return impl_->ranks.world_size; }
c10::Device Group::device() const { return impl_->device; }
int Group::local_rank() const { return impl_->ranks.local_rank; }
void Group::check() const { impl_->check(); }

std::optional<std::string> Group::fault() const { return impl_->fault(); }

void Group::fail(const std::string& why, bool leaves) {
  if (!impl_->watchdog || impl_->closed) return;
  impl_->watchdog->fail(why, rank());
  if (leaves) impl_->watchdog->linger();
}

void Group::close(Site site) {
  if (impl_->closed) return;
  impl_->together("finish", "", "", site);
  impl_->closed = true;
  if (impl_->watchdog) impl_->watchdog->stop();
  if (impl_->store) leave_store(*impl_->store, impl_->ranks, kLeavePatience);
}

c10::intrusive_ptr<c10d::ProcessGroup> Group::process_group() const {
  return impl_->transport ? impl_->transport->data() : c10::intrusive_ptr<c10d::ProcessGroup>();
}

StopRequest Group::at_step(std::uint64_t step, std::uint64_t last, const StopRequest& wish, Site site) {
  if (!impl_->watchdog) return wish;
  impl_->check();
  StopRequest order = impl_->watchdog->reach(step, last, wish, site);
  impl_->check();
  return order;
}

void Group::barrier(Site site) { impl_->together("barrier", "", "", site); }

std::vector<json> Group::compare(const char* operation, const std::string& what, const json& value, Site site) {
  std::vector<json> all;
  for (const CollectiveFingerprint& fingerprint : impl_->together(operation, what, to_bytes(value), site)) {
    all.push_back(from_bytes(fingerprint.value));
  }
  return all;
}

std::string Group::to_rank(int rank) { return fmt::format(" to rank {}", rank); }

std::string Group::name_of(Reduce how) {
  const char* const names[] = {"the sum of ", "the mean of ", "the minimum of ", "the maximum of "};
  return names[static_cast<int>(how)];
}

void Group::require_rank(const char* operation, int rank, Site site) const {
  if (rank >= 0 && rank < world_size()) return;
  throw Error(StatusCode::invalid, fmt::format("{} at {} names rank {}, and there are ranks 0 to {}", operation,
                                               text_of(site), rank, world_size() - 1));
}

json Group::broadcast_json(const json& value, int from, Site site) {
  require_rank("broadcast", from, site);
  const auto fingerprints = impl_->together("broadcast", fmt::format("a value from rank {}", from),
                                            rank() == from ? to_bytes(value) : std::string(), site);
  return from_bytes(fingerprints.at(static_cast<std::size_t>(from)).value);
}

void Group::run_on_main(const char* operation, const std::function<json()>& act, json& result, Site site) {
  std::exception_ptr thrown;
  json outcome;
  if (is_main()) {
    try {
      outcome["result"] = act();
    } catch (const RankFault&) {
      throw;
    } catch (const c10::Error& error) {
      thrown = std::current_exception();
      outcome = {{"type", type_of(error)}, {"text", error.what_without_backtrace()}};
    } catch (const std::exception& error) {
      thrown = std::current_exception();
      outcome = {{"type", type_of(error)}, {"text", error.what()}};
    } catch (...) {
      thrown = std::current_exception();
      outcome = {{"type", "an exception that is not a std::exception"}, {"text", ""}};
    }
  }
  const auto fingerprints = impl_->together(operation, "", is_main() ? to_bytes(outcome) : std::string(), site);
  if (thrown) std::rethrow_exception(thrown);
  if (!is_main()) outcome = from_bytes(fingerprints.front().value);
  if (outcome.contains("type")) {
    throw Error(StatusCode::invalid,
                fmt::format("rank 0 threw {} in {} at {}: {}", outcome["type"].get<std::string>(), operation,
                            fingerprints.front().site, outcome["text"].get<std::string>()));
  }
  result = std::move(outcome["result"]);
}

std::pair<std::size_t, std::size_t> Group::part(std::size_t size) const {
  const auto ranks = static_cast<std::size_t>(world_size()), mine = static_cast<std::size_t>(rank());
  const std::size_t each = size / ranks, longer = size % ranks;
  const std::size_t begin = mine * each + std::min(mine, longer);
  return {begin, begin + each + (mine < longer ? 1 : 0)};
}

// ---------------------------------------------------------------------------------------------------------------------
// Tensors

void Group::broadcast(at::Tensor& tensor, int from, Site site) {
  require_rank("broadcast", from, site);
  require_dense(tensor, /*written=*/true, "broadcast", site);
  impl_->together("broadcast", fmt::format("{} from rank {}", describe(tensor), from), "", site,
                  [&](const std::vector<CollectiveFingerprint>&) {
                    const at::NoGradGuard no_grad;
                    std::vector<at::Tensor> bytes{bytes_of(tensor)};
                    c10d::BroadcastOptions options;
                    options.rootRank = from;
                    process_group()->broadcast(bytes, options)->wait();
                    if (rank() != from) tensor.copy_(bytes[0].view(tensor.scalar_type()).view(tensor.sizes()));
                  });
}

void Group::all_reduce(at::Tensor& tensor, Reduce how, Site site) {
  require_dense(tensor, /*written=*/true, "all_reduce", site);
  const bool whole = at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true);
  if (!can_be_reduced(tensor.scalar_type()) || (whole && how == Reduce::mean)) {
    throw Error(StatusCode::invalid, fmt::format("all_reduce cannot compute this of {} at {}; convert it first",
                                                 describe(tensor), text_of(site)));
  }
  impl_->together("all_reduce", name_of(how) + describe(tensor), "", site,
                  [&](const std::vector<CollectiveFingerprint>&) {
                    const at::NoGradGuard no_grad;
                    std::vector<at::Tensor> work{tensor.contiguous()};
                    c10d::AllreduceOptions options;
                    options.reduceOp = how == Reduce::min   ? c10d::ReduceOp::MIN
                                       : how == Reduce::max ? c10d::ReduceOp::MAX
                                                            : c10d::ReduceOp::SUM;
                    process_group()->allreduce(work, options)->wait();
                    if (!work[0].is_same(tensor)) tensor.copy_(work[0]);
                    if (how == Reduce::mean) tensor.div_(world_size());
                  });
}

std::vector<at::Tensor> Group::gather_tensors(const char* operation, const std::string& whither,
                                              const at::Tensor& tensor, Site site) {
  require_dense(tensor, /*written=*/false, operation, site);
  if (tensor.dim() == 0) {
    throw Error(StatusCode::invalid, fmt::format("{} takes tensors with a first dimension, at {}; unsqueeze(0) gives a "
                                                 "number one",
                                                 operation, text_of(site)));
  }
  std::vector<at::Tensor> all;
  const auto move = [&](const std::vector<CollectiveFingerprint>& fingerprints) {
    const at::NoGradGuard no_grad;
    std::vector<std::int64_t> lengths;
    for (const CollectiveFingerprint& fingerprint : fingerprints)
      lengths.push_back(from_bytes(fingerprint.value).get<std::int64_t>());
    const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    auto shape = tensor.sizes().vec();
    shape[0] = longest;
    at::Tensor padded = at::zeros(shape, tensor.options());
    padded.narrow(0, 0, tensor.size(0)).copy_(tensor);
    std::vector<at::Tensor> bytes{bytes_of(padded)};
    std::vector<std::vector<at::Tensor>> gathered(1);
    for (std::size_t i = 0; i < fingerprints.size(); ++i) gathered[0].push_back(at::empty_like(bytes[0]));
    if (bytes[0].numel() > 0) process_group()->allgather(gathered, bytes)->wait();
    for (std::size_t i = 0; i < fingerprints.size(); ++i) {
      all.push_back(gathered[0][i].view(tensor.scalar_type()).view(shape).narrow(0, 0, lengths[i]));
    }
  };
  impl_->together(operation, describe(tensor, 1) + whither, to_bytes(tensor.size(0)), site, move);
  if (world_size() == 1) all.push_back(tensor.detach().clone());
  return all;
}

std::vector<at::Tensor> Group::all_gather(const at::Tensor& tensor, Site site) {
  return gather_tensors("all_gather", "", tensor, site);
}

std::vector<at::Tensor> Group::gather(const at::Tensor& tensor, int to, Site site) {
  require_rank("gather", to, site);
  auto all = gather_tensors("gather", to_rank(to), tensor, site);
  if (rank() != to) all.clear();
  return all;
}

// ---------------------------------------------------------------------------------------------------------------------
// Operations of others

void Group::operation(const std::string& name, const std::function<void()>& act, Site site) {
  impl_->check();
  if (!impl_->transport) return act();
  impl_->enter(name, text_of(site));
  try {
    act();
  } catch (const std::exception& error) {
    if (fault() || is_connection(error)) impl_->broke(name, text_of(site), error);
    impl_->stop_failed(name, text_of(site), error);
  }
  impl_->leave();
  impl_->check();
}

}  // namespace holdfast
