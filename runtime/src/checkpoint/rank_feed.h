// The tensors of a version for all ranks: rank 0 alone reads the store, so that only its host needs to reach it. Every
// rank makes its restore plan against the same manifest; rank 0 reads its own tensors, then sends the others theirs.
// Threads: one at a time. All ranks call all functions together.
#pragma once

#include "holdfast/runtime/ranks/group.h"
#include "holdfast/storage/readers/version_reader.h"
#include "snapshot/tensor_feed.h"

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

}  // namespace holdfast
