// One version for all ranks: rank 0 alone reads and writes the store, so that only its host needs to reach it.
//
// Loading: every rank makes its restore plan against the same manifest; rank 0 reads its own tensors, then sends the
// others theirs. Saving: rank 0's capture represents all ranks; another rank's differing state (generators, buffers,
// values) is sent to it and saved under a name with that rank (rank_names.h). Threads: one at a time. All ranks call
// all functions together.
#pragma once

#include "holdfast/runtime/ranks/group.h"
#include "holdfast/storage/readers/version_reader.h"
#include "state/run_state.h"
#include "state/tensor_feed.h"

namespace holdfast {

/// Rank 0's side of a load.
class MainFeed final : public TensorFeed {
 public:
  MainFeed(Group& group, const storage::VersionReader& version) : group_(group), version_(version) {}
  void require(const Compatibility& fit) override;
  void fill(const std::vector<LoadTarget>& targets) override;

 private:
  Group& group_;
  const storage::VersionReader& version_;
};

/// The other ranks' side.
class RankFeed final : public TensorFeed {
 public:
  RankFeed(Group& group, const storage::Manifest& manifest) : group_(group), manifest_(manifest) {}
  void require(const Compatibility& fit) override;
  void fill(const std::vector<LoadTarget>& targets) override;

 private:
  Group& group_;
  const storage::Manifest& manifest_;
};

/// Adds the other ranks' differing state to rank 0's capture. The others' captures stay as they are.
void gather_rank_state(Group& group, Snapshot& captured, Group::Site site);

/// Throws Error(invalid) on all ranks, naming tensor and ranks, if a tensor that must be alike on all of them is not.
/// `when`: "before the first step". `site`: in the program.
void require_alike(Group& group, const Snapshot& captured, Group::Site site, const std::string& when,
                   const std::string& remedy);

}  // namespace holdfast
