// The rendezvous of a group's ranks: each connects to the store that rank 0, or the launcher, holds, identifies itself,
// and waits for the others. Every rank reports a start that cannot succeed (two ranks of one number, hosts with
// different numbers of ranks, a rank that never arrives).
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <functional>
#include <string>

#include "holdfast/runtime/ranks/rank_environment.h"

namespace c10d {
class Store;
}

namespace holdfast {

struct JoinOptions {
  std::chrono::milliseconds patience{300000};
  std::chrono::milliseconds say_waiting_after{30000};  // report missing ranks once, after so long
  std::function<void(const std::string&)> say;         // on rank 0
};

/// Sets `greeting` under `<key>/<rank>` in the store and returns when all ranks have done so. `who` is a unique name of
/// this process, for messages. Throws Error(unreadable) with the ranks that did not arrive in time, Error(invalid) if
/// two processes have the same rank or different numbers of ranks.
c10::intrusive_ptr<c10d::Store> join_store(const RankEnvironment& ranks, const std::string& key,
                                           const std::string& greeting, const std::string& who,
                                           const JoinOptions& options);
/// Finds this rank's number on its host by a rendezvous, if the launcher did not give it. Ranks are on one host if host
/// name and boot id are the same.
void find_place_on_host(RankEnvironment& ranks, const JoinOptions& options);
/// A rank may be slow to read the others' last messages.
inline constexpr std::chrono::seconds kLeavePatience{10};
/// If rank 0's process holds the store, waits there until the others have left it, at most `patience`.
void leave_store(c10d::Store& store, const RankEnvironment& ranks, std::chrono::milliseconds patience);

}  // namespace holdfast
