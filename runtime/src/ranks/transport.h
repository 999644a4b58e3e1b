// The connections of one group of ranks: a store that all can reach, a Gloo group of their own for what the ranks tell
// each other, and the groups that tensors move in (NCCL for CUDA, Gloo for the CPU). The only place that knows c10d's
// backends.
//
// Threads: exchange() from one thread at a time; has_lost_connection() and interrupt() from any.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/ranks/rank_environment.h"

namespace c10d {
class ProcessGroup;
class Store;
}  // namespace c10d

namespace holdfast {

/// A socket of this process by its descriptor, which another one may get after it is closed, and the number by which
/// the kernel knows it, which stays its own.
struct OpenSocket {
  int descriptor;
  std::uint64_t inode;
  auto operator<=>(const OpenSocket&) const = default;
};

/// A connection of its own to the same store, whose blocked calls end when it is closed.
class StoreConnection {
 public:
  /// `port`: where the store listens.
  StoreConnection(c10d::Store& store, std::uint16_t port);
  ~StoreConnection();
  StoreConnection(const StoreConnection&) = delete;
  StoreConnection& operator=(const StoreConnection&) = delete;
  void set(const std::string& key, const std::string& value);
  /// Blocks until all are there.
  std::vector<std::string> get(const std::vector<std::string>& keys);
  /// Makes calls that are under way, on any thread, and all later ones throw.
  void close();

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<OpenSocket> sockets_;
};

class Transport {
 public:
  /// What the process's environment must say for ranks on `device`: before other threads read it.
  static void prepare(c10::Device device);
  /// All ranks call it. The store is joined already.
  Transport(const RankEnvironment& ranks, c10::intrusive_ptr<c10d::Store> store, c10::Device device);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  /// Everybody's bytes, by rank. All ranks must give as many.
  std::vector<std::string> exchange(const std::string& bytes);
  /// Rank `from`'s bytes, into everybody's. All ranks must give as many.
  void broadcast(std::string& bytes, int from);
  /// For tensors, and for c10d's Reducer.
  const c10::intrusive_ptr<c10d::ProcessGroup>& data() const { return data_; }
  /// Whether another rank has closed its end of a connection, as the system does for a process that ended. Never
  /// blocks.
  bool has_lost_connection() const;
  /// Ends every wait that is under way. Nothing of this may be used afterwards.
  void interrupt();

 private:
  struct Backends;
  std::unique_ptr<Backends> backends_;
  c10::intrusive_ptr<c10d::ProcessGroup> data_;
  int world_size_;
};

}  // namespace holdfast
