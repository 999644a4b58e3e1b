#include "inspect/checkpoint_diff.h"

#include <algorithm>
#include <iterator>

namespace holdfast::tools {

using nlohmann::json;
using storage::Result;
using storage::TensorEntry;

namespace {

void diff_json(const std::string& path, const json& a, const json& b, std::vector<ChangedValue>& changed) {
  if (a == b && a.type() == b.type()) return;
  if (!a.is_object() || !b.is_object()) {
    changed.push_back({path, a, b});
    return;
  }
  // RFC 6901, section 3.
  const auto token = [](std::string key) {
    for (std::size_t at = 0; (at = key.find_first_of("~/", at)) != std::string::npos; at += 2) {
      key.replace(at, 1, key[at] == '~' ? "~0" : "~1");
    }
    return "/" + key;
  };
  for (const auto& [key, value] : a.items()) {
    if (const auto other = b.find(key); other != b.end()) {
      diff_json(path + token(key), value, *other, changed);
    } else {
      changed.push_back({path + token(key), value, std::nullopt});
    }
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key)) changed.push_back({path + token(key), std::nullopt, value});
  }
}

json comparable(const storage::Manifest& manifest) {
  return {
      {"position",
       {{"step", manifest.position.step}, {"epoch", manifest.position.epoch}, {"samples", manifest.position.samples}}},
      {"tied", manifest.tied},
      {"values", manifest.values}};
}

}  // namespace

Result<Difference> compare(const Checkpoint& a, const Checkpoint& b, bool every_byte,
                           const std::function<void(std::uint64_t done, std::uint64_t total)>& progress) {
  Difference difference;
  const std::vector<std::string> a_names = a.tensor_names();
  const std::vector<std::string> b_names = b.tensor_names();
  std::set_difference(a_names.begin(), a_names.end(), b_names.begin(), b_names.end(),
                      std::back_inserter(difference.only_in_a));
  std::set_difference(b_names.begin(), b_names.end(), a_names.begin(), a_names.end(),
                      std::back_inserter(difference.only_in_b));
  std::vector<std::string> both;
  std::set_intersection(a_names.begin(), a_names.end(), b_names.begin(), b_names.end(), std::back_inserter(both));

  std::uint64_t done = 0, total = 0;
  for (const std::string& name : both) total += a.manifest.find(name)->bytes();
  const auto advance = [&](std::uint64_t bytes) { progress(done += bytes, total); };
  for (const std::string& name : both) {
    const TensorEntry* in_a = a.manifest.find(name);
    const TensorEntry* in_b = b.manifest.find(name);
    const bool alike_type = in_a->dtype == in_b->dtype;
    if (in_a->shape != in_b->shape) {
      difference.tensors.push_back({name, in_a, in_b, std::nullopt});
      advance(in_a->bytes());
      continue;
    }
    const bool both_have_digests = a.is_version && b.is_version;
    if (alike_type && both_have_digests && !every_byte && in_a->digest == in_b->digest) {
      ++difference.alike;
      advance(in_a->bytes());
      continue;
    }
    const auto diff = compare(a, *in_a, b, *in_b, advance);
    if (!diff) return diff.status();
    if (alike_type && diff->differing == 0) {
      ++difference.alike;
    } else {
      difference.tensors.push_back({name, in_a, in_b, *diff});
    }
  }
  difference.compared_values = a.is_version && b.is_version;
  if (difference.compared_values) diff_json("", comparable(a.manifest), comparable(b.manifest), difference.values);
  return difference;
}

}  // namespace holdfast::tools
