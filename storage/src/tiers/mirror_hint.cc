#include "holdfast/storage/tiers/mirror_hint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "holdfast/storage/formats/digest.h"

namespace holdfast::storage {
namespace {

using nlohmann::json;

constexpr std::string_view kSuffix = ".mirror";
constexpr std::uint64_t kMaxHintBytes = std::uint64_t{1} << 24;

}  // namespace

Status write_mirror_hint(Store& home, const MirrorHint& hint) {
  json versions = json::object();
  for (const auto& [uid, durability] : hint.versions) versions[uid.text()] = durability;
  const std::string name = "hints/" + digest_of(std::string_view(hint.place)).hex().substr(0, 8) + std::string(kSuffix);
  const json content = {{"place", hint.place}, {"versions", std::move(versions)}};
  return home.put(name, content.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
}

std::vector<MirrorHint> read_mirror_hints(const Store& home) {
  std::vector<MirrorHint> hints;
  const auto names = home.list("hints");
  if (!names) return hints;
  for (const std::string& name : *names) {
    if (!name.ends_with(kSuffix)) continue;
    const auto bytes = home.get(name, kMaxHintBytes);
    const json content = bytes ? json::parse(*bytes, nullptr, /*allow_exceptions=*/false) : json();
    if (!content.is_object() || !content.contains("place") || !content["place"].is_string()) continue;
    if (!content.contains("versions") || !content["versions"].is_object()) continue;
    MirrorHint hint{content["place"].get<std::string>(), {}};
    for (const auto& [text, durability] : content["versions"].items()) {
      const auto uid = Uid::parse(text);
      if (uid && durability.is_string()) hint.versions[*uid] = durability.get<std::string>();
    }
    hints.push_back(std::move(hint));
  }
  std::sort(hints.begin(), hints.end(), [](const auto& a, const auto& b) { return a.place < b.place; });
  return hints;
}

}  // namespace holdfast::storage
