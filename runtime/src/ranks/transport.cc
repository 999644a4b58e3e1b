#include "ranks/transport.h"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <optional>
#include <set>
#include <sstream>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef HOLDFAST_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "holdfast/runtime/error.h"
#include "process/detached_task.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// The watchdog ends waits; c10d's own limits must never be reached.
constexpr std::chrono::hours kNoLimit{24 * 30};
constexpr std::chrono::milliseconds kLook{50};

// The sockets that are open now. Shutting them down ends the calls that block in them; c10d itself cannot end its Gloo
// and store calls.
std::set<OpenSocket> open_sockets() {
  namespace fs = boost::filesystem;
  std::set<OpenSocket> sockets;
  boost::system::error_code error;
  for (fs::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end; entry.increment(error)) {
    const int fd = std::atoi(entry->path().filename().c_str());
    struct stat info {};
    if (::fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode)) sockets.insert({fd, info.st_ino});
  }
  return sockets;
}

// The port of one end of an internet socket; else nothing.
std::optional<std::uint16_t> port_of(int fd, int (*end)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (end(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return std::nullopt;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return std::nullopt;
}

// Whether the socket is one end of a connection that this process uses. Shutting down a listening socket makes Gloo end
// the process. If the store is in this process, its ends of the other ranks' connections belong to those ranks.
bool is_ours_to_end(int fd, std::uint16_t store_port) {
  int listens = 0;
  socklen_t length = sizeof listens;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || listens != 0) return false;
  const auto own = port_of(fd, ::getsockname);
  return own && *own != store_port;
}

// Whether the other end is where the store listens.
bool leads_to_store(int fd, std::uint16_t store_port) { return port_of(fd, ::getpeername) == store_port; }

// Another thread of the program may have opened some of them, so callers check each.
std::vector<OpenSocket> opened_since(const std::set<OpenSocket>& before) {
  std::vector<OpenSocket> fresh;
  for (const OpenSocket& socket : open_sockets()) {
    if (!before.contains(socket)) fresh.push_back(socket);
  }
  return fresh;
}

// A socket that is closed by now may have left its number to a file or a connection of the program.
bool is_still(const OpenSocket& socket) {
  struct stat now {};
  return ::fstat(socket.descriptor, &now) == 0 && S_ISSOCK(now.st_mode) && now.st_ino == socket.inode;
}

void shut_down(const std::vector<OpenSocket>& sockets) {
  for (const OpenSocket& socket : sockets) {
    if (is_still(socket)) ::shutdown(socket.descriptor, SHUT_RDWR);
  }
}

// The ports of a connection's two ends, this one's first. Empty if it is not a connection.
std::optional<std::pair<std::uint16_t, std::uint16_t>> ports_of(const OpenSocket& socket) {
  const auto own = port_of(socket.descriptor, ::getsockname), other = port_of(socket.descriptor, ::getpeername);
  if (!own || !other) return std::nullopt;
  return std::pair(*own, *other);
}

// The sockets that lead to other ranks. Another thread of the program may have opened some of the sockets;
// only a connection between two ranks is known to both. All ranks call it.
std::vector<OpenSocket> between_ranks(const std::vector<OpenSocket>& sockets, c10d::Store& store,
                                      const RankEnvironment& ranks) {
  std::string mine;
  for (const OpenSocket& socket : sockets) {
    if (const auto ports = ports_of(socket)) mine += fmt::format("{} {} ", ports->first, ports->second);
  }
  const auto key = [](int rank) { return fmt::format("connections/{}", rank); };
  store.set(key(ranks.rank), mine);
  std::set<std::pair<std::uint16_t, std::uint16_t>> theirs;
  for (int rank = 0; rank < ranks.world_size; ++rank) {
    if (rank == ranks.rank) continue;
    const auto bytes = store.get(key(rank));
    std::istringstream text(std::string(bytes.begin(), bytes.end()));
    for (std::pair<std::uint16_t, std::uint16_t> ports; text >> ports.first >> ports.second;) theirs.insert(ports);
  }
  std::vector<OpenSocket> found;
  for (const OpenSocket& socket : sockets) {
    const auto ports = ports_of(socket);
    if (ports && theirs.contains({ports->second, ports->first})) found.push_back(socket);
  }
  return found;
}

// The local address from which this host reaches rank 0: the other ranks can reach this host there too. A host's own
// name often resolves to the loopback address, or not at all.
std::string address_towards(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return "127.0.0.1";
  std::string address = "127.0.0.1";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    char text[NI_MAXHOST] = "";
    // Connecting a datagram socket sends nothing; it only selects the route.
    const bool known =
        ::connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
    ::close(fd);
    if (!known) continue;
    address = text;
    break;
  }
  ::freeaddrinfo(found);
  return address;
}

c10::intrusive_ptr<c10d::Backend> make_gloo(const std::string& name, const c10::intrusive_ptr<c10d::Store>& store,
                                            const RankEnvironment& ranks) {
  auto options = std::getenv("GLOO_SOCKET_IFNAME") != nullptr
                     ? c10d::ProcessGroupGloo::Options::create_default(kNoLimit)
                     : c10d::ProcessGroupGloo::Options::create(kNoLimit);
  if (options->devices.empty()) {
    options->devices.push_back(
        c10d::ProcessGroupGloo::createDeviceForHostname(address_towards(ranks.address, ranks.port)));
  }
  options->threads = 2;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, store), ranks.rank,
                                                     ranks.world_size, options);
}

// A view of the text's memory.
at::Tensor bytes_in(std::string& text) {
  return at::from_blob(text.data(), {static_cast<std::int64_t>(text.size())}, at::kByte);
}

}  // namespace

StoreConnection::StoreConnection(c10d::Store& store, std::uint16_t port) {
  const auto before = open_sockets();
  // clone() retries even if nothing listens any more; check() on the store reports that at once.
  auto made = run_detached(
      "to connect to the other ranks",
      [store = c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(&store)] { return store->clone(); });
  try {
    while (made.wait_for(kLook) != std::future_status::ready) (void)store.check({"there"});
    store_ = made.get();
  } catch (const std::exception&) {
    throw Error(StatusCode::unreadable, fmt::format("the store at port {} is gone: the process that held it, rank 0 or "
                                                    "the launcher, ended while this rank connected to it",
                                                    port));
  }
  sockets_ = opened_since(before);
  std::erase_if(sockets_, [&](const OpenSocket& socket) { return !leads_to_store(socket.descriptor, port); });
}

StoreConnection::~StoreConnection() = default;

void StoreConnection::set(const std::string& key, const std::string& value) { store_->set(key, value); }

std::vector<std::string> StoreConnection::get(const std::vector<std::string>& keys) {
  std::vector<std::string> values;
  for (const auto& bytes : store_->multiGet(keys)) values.emplace_back(bytes.begin(), bytes.end());
  return values;
}

void StoreConnection::close() { shut_down(sockets_); }

struct Transport::Backends {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> control;
  c10::intrusive_ptr<c10d::Backend> gloo;
  c10::intrusive_ptr<c10d::Backend> nccl;
  std::vector<OpenSocket> sockets;   // those in which calls of this group may wait
  std::vector<OpenSocket> to_ranks;  // those that certainly lead to other ranks
};

void Transport::prepare(c10::Device device) {
  // Holdfast's watchdog ends waits. NCCL's own watchdog would end the process without a message or a last line in the
  // log. Set once, because the threads of an earlier group may be reading the environment.
  constexpr const char* kHandling = "TORCH_NCCL_ASYNC_ERROR_HANDLING";
  const char* const present = std::getenv(kHandling);
  if (device.is_cuda() && (present == nullptr || std::strcmp(present, "0") != 0)) ::setenv(kHandling, "0", 1);
}

Transport::Transport(const RankEnvironment& ranks, c10::intrusive_ptr<c10d::Store> store, c10::Device device)
    : backends_(std::make_unique<Backends>()), world_size_(ranks.world_size) {
  const auto before = open_sockets();
  backends_->store = store;
  backends_->control = make_gloo("control", store, ranks);
  backends_->gloo = make_gloo("data", store, ranks);
  data_ = c10::make_intrusive<c10d::ProcessGroup>(c10::make_intrusive<c10d::PrefixStore>("group", store), ranks.rank,
                                                  ranks.world_size);
#ifdef HOLDFAST_NCCL
  if (device.is_cuda()) {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = kNoLimit;
    options->is_high_priority_stream = true;  // an exchange takes little of the device and others wait for it
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store),
                                                            ranks.rank, ranks.world_size, options);
    data_->setBoundDeviceId(device);  // before setBackend, which copies it to the backend
    data_->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, nccl);
    backends_->nccl = nccl;
  }
#else
  if (device.is_cuda()) {
    throw Error(StatusCode::unsupported,
                "this Holdfast was built without NCCL, so several ranks cannot use GPUs: build "
                "it where nccl.h and a CUDA toolkit are installed");
  }
#endif
  data_->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, backends_->gloo);
  data_->setDefaultBackend(device.is_cuda() ? c10d::ProcessGroup::BackendType::NCCL
                                            : c10d::ProcessGroup::BackendType::GLOO);
  (void)exchange("a");  // now every connection exists
  backends_->sockets = opened_since(before);
  std::erase_if(backends_->sockets,
                [&](const OpenSocket& socket) { return !is_ours_to_end(socket.descriptor, ranks.port); });
  backends_->to_ranks = between_ranks(backends_->sockets, *store, ranks);
  // With address translation no ports match: then all sockets opened during the construction count.
  if (backends_->to_ranks.empty()) return;
  std::erase_if(backends_->sockets, [&](const OpenSocket& socket) {
    return !leads_to_store(socket.descriptor, ranks.port) &&
           std::find(backends_->to_ranks.begin(), backends_->to_ranks.end(), socket) == backends_->to_ranks.end();
  });
}

Transport::~Transport() {
  try {
    if (backends_->nccl) backends_->nccl->shutdown();
  } catch (const std::exception&) {  // the group is broken: nothing is left to shut down
  }
}

std::vector<std::string> Transport::exchange(const std::string& bytes) {
  std::vector<std::string> texts(static_cast<std::size_t>(world_size_), std::string(bytes.size(), '\0'));
  std::vector<std::vector<at::Tensor>> outputs(1);
  for (std::string& text : texts) outputs[0].push_back(bytes_in(text));
  std::string mine = bytes;
  std::vector<at::Tensor> inputs{bytes_in(mine)};
  backends_->control->allgather(outputs, inputs)->wait();
  return texts;
}

void Transport::broadcast(std::string& bytes, int from) {
  std::vector<at::Tensor> tensors{bytes_in(bytes)};
  c10d::BroadcastOptions options;
  options.rootRank = from;
  backends_->control->broadcast(tensors, options)->wait();
}

bool Transport::has_lost_connection() const {
  std::vector<pollfd> all;
  for (const OpenSocket& socket : backends_->to_ranks) {
    if (!is_still(socket)) return true;  // Gloo closes its own end when the other one is closed
    all.push_back({socket.descriptor, POLLRDHUP, 0});
  }
  if (::poll(all.data(), all.size(), 0) <= 0) return false;
  return std::any_of(all.begin(), all.end(),
                     [](const pollfd& one) { return (one.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0; });
}

void Transport::interrupt() {
  shut_down(backends_->sockets);
  try {
    if (backends_->nccl) backends_->nccl->abort();
  } catch (const std::exception&) {  // the watchdog calls it and already has the fault's cause
  }
}

}  // namespace holdfast
