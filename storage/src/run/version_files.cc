#include "run/version_files.h"

#include "holdfast/storage/formats/manifest_head.h"

namespace holdfast::storage {

std::optional<std::set<std::string>> live_files(const Store& store, const std::vector<VersionRef>& versions) {
  std::set<std::string> live;
  for (const VersionRef& version : versions) {
    auto bytes = store.get(entry_name(version.uid, EntryKind::save));
    if (!bytes) return std::nullopt;
    const auto head = decode_manifest_head(*bytes);
    if (!head) return std::nullopt;
    for (const FileEntry& file : head->manifest.files) live.insert(file.name);
  }
  return live;
}

std::set<std::string> files_of(const Store& store, const std::set<Uid>& versions) {
  std::set<std::string> files;
  for (const Uid& uid : versions) {
    auto bytes = store.get(entry_name(uid, EntryKind::save));
    if (bytes.code() == StatusCode::not_found) continue;
    const auto head = bytes ? decode_manifest_head(*bytes) : Result<ManifestHead>(bytes.status());
    if (!head) continue;  // its payload becomes an orphan
    for (const FileEntry& file : head->manifest.files) files.insert(file.name);
  }
  return files;
}

Status remove_manifests(Store& store, const std::set<Uid>& versions) {
  for (const Uid& uid : versions) {
    if (Status status = store.remove(entry_name(uid, EntryKind::save)); !status.ok()) return status;
  }
  return store.sync_folder("journal");
}

Status remove_unreferenced(Store& store, const std::set<std::string>& files, const std::vector<VersionRef>& left) {
  const auto live = live_files(store, left);
  if (!live) return {};  // a manifest that cannot be read may refer to any of them
  for (const std::string& file : files) {
    if (live->contains(file)) continue;
    if (Status status = store.remove(file); !status.ok()) return status;
  }
  return {};
}

}  // namespace holdfast::storage
