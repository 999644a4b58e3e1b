// The connections of one group of ranks: a store that all can reach, a Gloo group of its own for fingerprints and
// values, and the groups that move tensors (NCCL for CUDA, Gloo for the CPU). Only this module knows c10d's backends.
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

/// A socket of this process: its descriptor, which another socket may get after it is closed, and its inode number,
/// which stays unique.
struct OpenSocket {
  int descriptor;
  std::uint64_t inode;
  auto operator<=>(const OpenSocket&) const = default;
};

/// A separate connection to a store; close() ends its blocked calls.
class StoreConnection {
 public:
  /// `port`: where the store listens.
  StoreConnection(c10d::Store& store, std::uint16_t port);
  ~StoreConnection();
  StoreConnection(const StoreConnection&) = delete;
  StoreConnection& operator=(const StoreConnection&) = delete;
  void set(const std::string& key, const std::string& value);
  /// Blocks until all keys exist.
  std::vector<std::string> get(const std::vector<std::string>& keys);
  /// Makes running calls, on any thread, and all later ones throw.
  void close();

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<OpenSocket> sockets_;
};

class Transport {
 public:
  /// Sets the environment variables that ranks on `device` need. Call it before other threads read the environment.
  static void prepare(c10::Device device);
  /// All ranks call it. The store is joined already.
  Transport(const RankEnvironment& ranks, c10::intrusive_ptr<c10d::Store> store, c10::Device device);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  /// Every rank's bytes, by rank. All ranks must pass the same number.
  std::vector<std::string> exchange(const std::string& bytes);
  /// Copies rank `from`'s bytes to every rank's. All ranks must pass the same number.
  void broadcast(std::string& bytes, int from);
  /// For tensors, and for c10d's Reducer.
  const c10::intrusive_ptr<c10d::ProcessGroup>& data() const { return data_; }
  /// Whether another rank has closed its end of a connection; the system closes those of a process that ended. Never
  /// blocks.
  bool has_lost_connection() const;
  /// Ends every running wait. The transport may not be used afterwards.
  void interrupt();

 private:
  struct Backends;
  std::unique_ptr<Backends> backends_;
  c10::intrusive_ptr<c10d::ProcessGroup> data_;
  int world_size_;
};

}  // namespace holdfast
