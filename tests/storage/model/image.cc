#include "image.h"

#include <utility>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/stores/object_name.h"

namespace holdfast::storage::model {

bool is_permanent_entry(const std::string& name) {
  const auto entry = parse_entry_name(name);
  return entry && entry->kind != EntryKind::save;
}

void Fingerprint::add(std::string_view element) {
  const Digest digest = digest_of(element);
  high += digest.high;
  low += digest.low;
}

void Fingerprint::take_away(std::string_view element) {
  const Digest digest = digest_of(element);
  high -= digest.high;
  low -= digest.low;
}

void Fingerprint::then(std::string_view element) {
  const Digest digest = digest_of(element);
  then(Fingerprint{digest.high, digest.low});
}

void Fingerprint::then(const Fingerprint& other) {
  const std::uint64_t words[4] = {high, low, other.high, other.low};
  const Digest digest = digest_of(std::as_bytes(std::span(words)));
  high = digest.high;
  low = digest.low;
}

bool Image::create(const std::string& name, Bytes bytes) {
  if (objects_.contains(name)) return false;
  if (!ever_.emplace(name, bytes).second)
    wrongs_.push_back(name + " was created a second time after it had been removed");
  fingerprint_.add(name + '\0' + *bytes);
  if (const auto entry = parse_entry_name(name); entry && entry->kind == EntryKind::open) {
    if (auto open = decode_open(*bytes)) opens_.push_back(std::move(*open));
  } else if (entry && entry->kind == EntryKind::note) {
    if (const auto note = decode_note(*bytes); note && note->kind == NoteKind::drop) {
      dropped_.insert(note->about.begin(), note->about.end());
    }
  }
  objects_.emplace(name, std::move(bytes));
  return true;
}

Work Image::work_of(const Uid& version) const {
  const auto found = ever_.find(entry_name(version, EntryKind::save));
  if (found == ever_.end()) return {};
  const auto manifest = decode_manifest(*found->second);
  return manifest.ok() ? manifest->values.at("work").get<Work>() : Work();
}

void Image::complete(const std::string& name, Bytes bytes) {
  const auto found = objects_.find(name);
  if (found == objects_.end()) return;
  fingerprint_.take_away(name + '\0' + *found->second);
  fingerprint_.add(name + '\0' + *bytes);
  found->second = std::move(bytes);
}

void Image::stage(const std::string& name) {
  if (staged_.insert(name).second) fingerprint_.add(name);
}

bool Image::unstage(const std::string& name) {
  if (staged_.erase(name) == 0) return false;
  fingerprint_.take_away(name);
  return true;
}

void Image::remove(const std::string& name) {
  const auto found = objects_.find(name);
  if (found == objects_.end()) return;
  if (is_permanent_entry(name)) wrongs_.push_back(name + " was removed, but open entries and notes are permanent");
  fingerprint_.take_away(name + '\0' + *found->second);
  objects_.erase(found);
}

Image::Bytes Image::find(const std::string& name) const {
  const auto found = objects_.find(name);
  return found == objects_.end() ? nullptr : found->second;
}

std::vector<std::string> Image::list(const std::string& folder) const {
  std::vector<std::string> names;
  const std::string prefix = folder + "/";
  for (auto at = objects_.lower_bound(prefix); at != objects_.end() && at->first.starts_with(prefix); ++at) {
    names.push_back(at->first);
  }
  return names;
}

}  // namespace holdfast::storage::model
