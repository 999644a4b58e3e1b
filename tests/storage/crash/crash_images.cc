#include "crash_images.h"

#include <algorithm>
#include <unordered_set>

namespace holdfast::storage::crash {
namespace {

Bytes torn(const std::string& bytes, std::size_t at) {
  std::string result = bytes;
  if (at < result.size()) std::fill(result.begin() + static_cast<std::ptrdiff_t>(at), result.end(), '\0');
  return std::make_shared<const std::string>(std::move(result));
}

/// The possible contents of a file after a crash: kept, lost, torn where the unsynced part begins, in its middle, and
/// one byte before the end of its first block (or of the file, if that comes first).
std::vector<Bytes> fates(const Inode& file) {
  std::vector<Bytes> result{file.bytes};
  if (file.bytes == file.safe) return result;
  const auto add = [&result](Bytes bytes) {
    for (const Bytes& other : result) {
      if (*other == *bytes) return;
    }
    result.push_back(std::move(bytes));
  };
  add(file.safe);
  const std::string& now = *file.bytes;
  const std::size_t begin = std::min(now.size(), file.safe->size());
  add(torn(now, begin));
  add(torn(now, begin + (now.size() - begin) / 2));
  const std::size_t block_end = begin / kBlock * kBlock + kBlock - 1;
  if (!now.empty()) add(torn(now, std::max(begin, std::min(block_end, now.size() - 1))));
  return result;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t mixed = (a ^ (b >> 32) ^ (b << 32)) * 0x9E3779B97F4A7C15U + b;
  mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93U;
  return mixed ^ (mixed >> 32);
}

Digest mix(const Digest& a, const Digest& b) { return {mix(a.high, b.high), mix(a.low, b.low ^ a.high)}; }

struct DigestHash {
  std::size_t operator()(const Digest& digest) const { return static_cast<std::size_t>(digest.low); }
};

/// Walks every combination of fates and name values, reachable inodes only.
class ImageWalk {
 public:
  ImageWalk(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
            const std::function<void(const DiskContent&)>& look)
      : disk_(disk), wanted_(wanted), look_(look), chosen_(disk.inodes.size()) {
    reach(0);
    resolve(0);
  }

 private:
  struct Entry {
    const std::string* name;
    Digest name_digest;
    InodeId inode;
  };
  struct Fate {
    Bytes bytes;
    Digest digest;
  };
  /// The decisions about an inode.
  struct Chosen {
    int reached = 0;
    std::vector<Entry> names;
    std::vector<Fate> fates;  // of a file, computed at the first use
    const Fate* fate = nullptr;
    const Fate* forced = nullptr;
  };

  void reach(InodeId inode) {
    if (chosen_[inode].reached++ == 0) queue_.push_back(inode);
  }
  void leave(InodeId inode) {
    if (--chosen_[inode].reached == 0) queue_.pop_back();
  }
  const std::vector<Fate>& fates_of(InodeId id) {
    Chosen& file = chosen_[id];
    if (file.fates.empty()) {
      for (Bytes& bytes : fates(disk_.inodes[id])) {
        const Digest digest = digest_of(*bytes);
        file.fates.push_back({std::move(bytes), digest});
      }
    }
    return file.fates;
  }

  void resolve(std::size_t position) {
    if (stopped_) return;
    if (position == queue_.size()) return emit();
    const InodeId id = queue_[position];
    const Inode& inode = disk_.inodes[id];
    if (!inode.is_directory) {
      for (const Fate& fate : fates_of(id)) {
        if (chosen_[id].forced && chosen_[id].forced != &fate) continue;
        chosen_[id].fate = &fate;
        resolve(position + 1);
      }
      return;
    }
    std::vector<Choice> choices;
    for (const auto& [name, value] : inode.names) {
      if (!inode.pending.count(name)) choices.push_back({&name, digest_of(name), {value}});
    }
    for (const auto& [name, values] : inode.pending) {
      Choice& choice = choices.emplace_back(Choice{&name, digest_of(name), {}});
      for (const Inode::Value& value : values) {
        if (std::find(choice.values.begin(), choice.values.end(), value) == choice.values.end()) {
          choice.values.push_back(value);
        }
      }
      if (inode.is_hints) choice.values = {values.front(), values.back()};
    }
    if (inode.is_hints) {
      for (const std::size_t now : {0, 1}) resolve_hints(position, id, choices, now);
    } else {
      resolve_names(position, id, choices, 0);
    }
  }

  struct Choice {
    const std::string* name;
    Digest digest;
    std::vector<Inode::Value> values;
  };

  void resolve_names(std::size_t position, InodeId id, const std::vector<Choice>& choices, std::size_t next) {
    if (next == choices.size()) return resolve(position + 1);
    for (const Inode::Value& value : choices[next].values) {
      if (stopped_) return;
      if (!value) {
        resolve_names(position, id, choices, next + 1);
        continue;
      }
      chosen_[id].names.push_back({choices[next].name, choices[next].digest, *value});
      reach(*value);
      resolve_names(position, id, choices, next + 1);
      leave(*value);
      chosen_[id].names.pop_back();
    }
  }

  void resolve_hints(std::size_t position, InodeId id, const std::vector<Choice>& choices, bool now) {
    std::vector<InodeId> reached;
    for (const Choice& choice : choices) {
      const Inode::Value& value = now ? choice.values.back() : choice.values.front();
      if (!value) continue;
      chosen_[id].names.push_back({choice.name, choice.digest, *value});
      reach(*value);
      reached.push_back(*value);
      const std::vector<Fate>& all = fates_of(*value);
      chosen_[*value].forced = now || all.size() == 1 ? &all[0] : &all[1];  // kept, or lost
    }
    resolve(position + 1);
    for (auto inode = reached.rbegin(); inode != reached.rend(); ++inode) leave(*inode);
    chosen_[id].names.clear();
  }

  /// Depends on names and bytes, but not on the order of the names.
  Digest identity_of(InodeId id) const {
    Digest sum{1, 1};
    for (const Entry& entry : chosen_[id].names) {
      const bool folder = disk_.inodes[entry.inode].is_directory;
      const Digest part = mix(entry.name_digest, folder ? identity_of(entry.inode) : chosen_[entry.inode].fate->digest);
      sum.high += part.high;
      sum.low += part.low;
    }
    return mix(sum, Digest{2, 2});
  }

  void emit() {
    const Digest identity = identity_of(0);
    if (!seen_.insert(identity).second) return;
    const Visit wanted = wanted_(identity);
    stopped_ = wanted == Visit::stop;
    if (wanted != Visit::look) return;
    DiskContent image;
    image.inodes.resize(disk_.inodes.size());
    for (const InodeId id : queue_) {
      Inode& inode = image.inodes[id];
      inode.is_directory = disk_.inodes[id].is_directory;
      inode.is_hints = disk_.inodes[id].is_hints;
      if (inode.is_directory) {
        for (const Entry& entry : chosen_[id].names) inode.names[*entry.name] = entry.inode;
      } else {
        inode.bytes = inode.safe = chosen_[id].fate->bytes;
      }
    }
    look_(image);
  }

  const DiskContent& disk_;
  const std::function<Visit(const Digest&)>& wanted_;
  const std::function<void(const DiskContent&)>& look_;
  std::vector<Chosen> chosen_;
  std::vector<InodeId> queue_;
  std::unordered_set<Digest, DigestHash> seen_;
  bool stopped_ = false;
};

}  // namespace

void for_each_image(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
                    const std::function<void(const DiskContent&)>& look) {
  ImageWalk(disk, wanted, look);
}

}  // namespace holdfast::storage::crash
