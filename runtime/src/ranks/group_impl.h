// A group's members, and how each of its operations runs. Five files implement the group: group.cc (construction and
// end), group_operation.cc (what every operation goes through), group_values.cc, group_tensors.cc, and
// group_control.cc (what only the library calls).
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "holdfast/runtime/ranks/group.h"
#include "ranks/collective_fingerprint.h"
#include "ranks/rendezvous.h"
#include "ranks/transport.h"
#include "ranks/watchdog.h"

namespace holdfast {

/// c10d adds stack traces to its messages.
inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

struct Group::Impl {
  using Fingerprints = std::vector<CollectiveFingerprint>;

  RankEnvironment ranks;
  c10::Device device = c10::kCPU;
  c10::intrusive_ptr<c10d::Store> store;
  std::mutex connecting;
  std::unique_ptr<Transport> transport;  // none in a group of one
  std::unique_ptr<Watchdog> watchdog;
  bool closed = false;
  std::uint64_t unwatched = 0;  // operations, if there is no watchdog to count them
  std::mutex turn;
  std::string under_way;  // the operation that some thread is in; empty: none

  class Turn;

  /// Runs one operation of all ranks: compares their fingerprints, then calls `act` with all of them.
  Fingerprints collective(const char* operation, const std::string& what, std::string value, const Site& site,
                          const std::function<void(const Fingerprints&)>& act = {});

  /// Opens the connections to the other ranks.
  void connect();
  /// Ends every wait for another rank. From the watchdog's thread.
  void interrupt();
  bool has_lost_connection();

  /// Throws RankFault if all ranks must stop.
  void check() const;
  std::optional<std::string> fault() const { return watchdog ? watchdog->fault() : std::nullopt; }
  /// Throws the cause of a broken connection, if the watchdog finds it in time.
  void heed_verdict() const;
  /// Stops all ranks, because of rank `origin`.
  [[noreturn]] void stop(const std::string& text, int origin);
  /// This rank's part of an operation threw. The others are in the middle of the operation.
  [[noreturn]] void stop_failed(const std::string& operation, const std::string& site, const std::exception& error);
  /// A call of c10d threw.
  [[noreturn]] void stop_broken(const std::string& operation, const std::string& site, const std::exception& error);

  /// The number of the operation that this rank enters.
  std::uint64_t enter(const std::string& operation, const std::string& site) {
    return watchdog ? watchdog->enter(operation, site) : ++unwatched;
  }
  void leave() {
    if (watchdog) watchdog->leave();
  }

 private:
  void fetch_long_values(Fingerprints& fingerprints, const std::string& mine);
};

}  // namespace holdfast
