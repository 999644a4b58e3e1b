#include "checkpoint/non_finite_counts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "holdfast/storage/formats/non_finite.h"
#include "holdfast/storage/text/units.h"
#include "snapshot/stored_name.h"

namespace holdfast {

NonFiniteCounts count_non_finite(const storage::Manifest& manifest) {
  NonFiniteCounts counts;
  for (const storage::TensorEntry& tensor : manifest.tensors) {
    if (tensor.non_finite > 0) counts[tensor.name] = tensor.non_finite;
  }
  return counts;
}

NonFiniteCounts count_non_finite(const Snapshot& captured) {
  NonFiniteCounts counts;
  for (const storage::TensorSource& source : captured.tensors) {
    storage::NonFiniteCounter counter(source.dtype);
    if (!counter.counts_anything()) continue;
    source.each_piece([&](std::span<const std::byte> piece) { counter.update(piece); });
    if (counter.count() > 0) counts[source.name] = counter.count();
  }
  return counts;
}

std::string more_non_finite(const NonFiniteCounts& before, const NonFiniteCounts& now, const std::string& than) {
  constexpr std::size_t kNamed = 3;
  std::uint64_t numbers = 0;
  std::vector<std::string> named;
  std::size_t unnamed = 0;
  for (const auto& [name, count] : now) {
    auto known = before.find(name);
    // A rank's own tensor that the version before does not have is compared with rank 0's.
    if (known == before.end()) known = before.find(stored_name(program_name(name)));
    const std::uint64_t were = known != before.end() ? known->second : 0;
    if (count <= were) continue;
    numbers += count - were;
    if (named.size() < kNamed) {
      named.push_back("'" + name + "'");
    } else {
      ++unnamed;
    }
  }
  if (numbers == 0) return {};
  std::string where;
  if (unnamed > 0) {
    where = fmt::format("{} and {} more tensor{}", fmt::join(named, ", "), unnamed, unnamed == 1 ? "" : "s");
  } else {
    const std::string last = named.back();
    named.pop_back();
    where = named.empty() ? last : fmt::format("{} and {}", fmt::join(named, ", "), last);
  }
  return fmt::format("{} more number{} NaN or infinite than {}, in {}", storage::format_count(numbers),
                     numbers == 1 ? " that is" : "s that are", than, where);
}

}  // namespace holdfast
