// How the ranks of a group meet: each comes to the store that rank 0, or the launcher, holds, says who it is, and waits
// for the others. Starts that cannot end well (two ranks of one number, hosts that count the ranks differently,
// somebody who never comes) are told on every rank.
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
  std::chrono::milliseconds say_waiting_after{30000};  // for ranks that do not come, once
  std::function<void(const std::string&)> say;         // on rank 0
};

/// Meets the others at rank 0's store: sets `greeting` under `<key>/<rank>` and returns when all ranks have done so.
/// `who` names this process to people and is no other's. Throws Error(unreadable) that names the ranks that did not
/// come in time, Error(invalid) where two say they are the same rank, or were told of different numbers of ranks.
c10::intrusive_ptr<c10d::Store> join_store(const RankEnvironment& ranks, const std::string& key,
                                           const std::string& greeting, const std::string& who,
                                           const JoinOptions& options);
/// Where the launcher did not say which of this host's ranks this is: meets the others and counts. Ranks are of one
/// host where its name and its boot are the same.
void find_place_on_host(RankEnvironment& ranks, const JoinOptions& options);
/// A rank may be slow to read what the others said last.
inline constexpr std::chrono::seconds kLeavePatience{10};
/// Where rank 0's process holds the store: waits there until the others need it no more, at most `patience`.
void leave_store(c10d::Store& store, const RankEnvironment& ranks, std::chrono::milliseconds patience);

}  // namespace holdfast
