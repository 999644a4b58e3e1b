#include "inspect/verified_hint.h"

#include <nlohmann/json.hpp>
#include <set>

#include "holdfast/storage/stores/file/file_store.h"

namespace holdfast::tools {

using nlohmann::json;
using storage::Digest;
using storage::Uid;

namespace {

constexpr const char* kName = "hints/verified.json";

}  // namespace

// {"versions": {"000042-7f3a9c1e": {"manifest": "<32 hex digits>", "ok": true, "time": "2026-01-01T00:00:00Z"}}}
VerifiedHint read_verified(const RunFolder& run) {
  VerifiedHint hint;
  const auto bytes = run.store->get(kName, std::uint64_t{1} << 26);
  if (!bytes) return hint;
  const json content = json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
  if (!content.is_object() || !content.contains("versions") || !content["versions"].is_object()) return hint;
  for (const auto& [name, entry] : content["versions"].items()) {
    const auto uid = Uid::parse(name);
    if (!uid || !entry.is_object() || !entry.contains("manifest") || !entry["manifest"].is_string() ||
        !entry.contains("ok") || !entry["ok"].is_boolean() || !entry.contains("time") || !entry["time"].is_string()) {
      continue;
    }
    const auto digest = Digest::parse(entry["manifest"].get<std::string>());
    if (digest) hint[*uid] = {*digest, entry["ok"].get<bool>(), entry["time"].get<std::string>()};
  }
  return hint;
}

storage::Status add_verified(const RunFolder& run, const VerifiedHint& results) {
  VerifiedHint hint = read_verified(run);
  for (const auto& [uid, result] : results) hint[uid] = result;
  std::set<Uid> present;
  for (const storage::VersionRef& version : run.history.versions()) present.insert(version.uid);
  json versions = json::object();
  for (const auto& [uid, result] : hint) {
    if (!present.contains(uid)) continue;
    versions[uid.text()] = {{"manifest", result.manifest.hex()}, {"ok", result.ok}, {"time", result.time}};
  }
  return storage::open_file_store(run.path)->put(kName, json{{"versions", versions}}.dump(1) + "\n");
}

std::optional<Verified> verified(const VerifiedHint& hint, const Uid& uid, const Digest& manifest) {
  const auto found = hint.find(uid);
  if (found == hint.end() || found->second.manifest != manifest) return std::nullopt;
  return found->second;
}

}  // namespace holdfast::tools
