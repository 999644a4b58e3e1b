// The connections of one group of ranks: a store that all can reach, a Gloo group of their own for what the ranks tell
// each other, and the groups that tensors move in (NCCL for CUDA, Gloo for the CPU). The only place that knows c10d's
// backends.
//
// Threads: exchange() from one thread at a time; interrupt() from any.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/rank_environment.h"

namespace c10d {
class ProcessGroup;
class Store;
}  // namespace c10d

namespace holdfast {

struct JoinOptions {
  std::chrono::milliseconds patience{300000};
  std::chrono::milliseconds say_waiting_after{30000};  // for ranks that do not come, once
  std::function<void(const std::string&)> say;         // on rank 0
};

/// Meets the others at rank 0's store: sets `greeting` under `<key>/<rank>` and returns when all ranks have done so.
/// `who` names this process to people and is no other's. Throws Error(unreadable) that names the ranks that did not
/// come in time, Error(invalid) where two say they are the same rank, or were told of different numbers of ranks.
c10::intrusive_ptr<c10d::Store> join_store(const RankEnvironment& ranks, const std::string& key,
                                           const std::string& greeting, const std::string& who,
                                           const JoinOptions& options);
/// Where rank 0's process holds the store: waits there until the others need it no more, at most `patience`.
void leave_store(c10d::Store& store, const RankEnvironment& ranks, std::chrono::milliseconds patience);

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
  std::vector<int> sockets_;
};

class Transport {
 public:
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
  /// Ends every wait that is under way. Nothing of this may be used afterwards.
  void interrupt();

 private:
  struct Backends;
  std::unique_ptr<Backends> backends_;
  c10::intrusive_ptr<c10d::ProcessGroup> data_;
  int world_size_;
};

}  // namespace holdfast
