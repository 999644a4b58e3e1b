#include "inspect/verification.h"

#include <fmt/format.h>

#include <algorithm>

#include "inspect/checkpoint.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"

namespace holdfast::tools {

using storage::StatusCode;

namespace {

/// Which tensors lie in a file beyond its `there` bytes, at most a few by name because listing all would give a line
/// for each.
std::string lost_tensors(const storage::Manifest& manifest, std::size_t file, std::uint64_t there) {
  constexpr std::size_t kNamed = 3;
  std::size_t lost = 0;
  std::string names;
  for (const storage::TensorEntry& tensor : manifest.tensors) {
    const bool is_lost = std::any_of(tensor.parts.begin(), tensor.parts.end(), [&](const storage::TensorPart& part) {
      return part.file == file && part.end > there;
    });
    if (is_lost && ++lost <= kNamed) names += (names.empty() ? "" : ", ") + in_quotes(tensor.name);
  }
  if (lost == 0) return "";
  return fmt::format("; {} in it {} lost: {}{}", plural(lost, "tensor"), lost == 1 ? "is" : "are", names,
                     lost > kNamed ? ", …" : "");
}

}  // namespace

bool is_damage(StatusCode code) {
  return code == StatusCode::corrupt || code == StatusCode::incomplete || code == StatusCode::not_found;
}

Verification verify(const RunFolder& run, const storage::Uid& uid) {
  Verification report;
  report.uid = uid;
  report.title = title_of(run, uid);
  const std::string manifest = entry_name(uid, storage::EntryKind::save);
  const auto checkpoint = open_version(run, uid);
  if (!checkpoint) {
    if (checkpoint.code() == StatusCode::not_found) {
      report.removed = true;
    } else if (is_damage(checkpoint.code())) {
      report.findings.push_back({checkpoint.code(), manifest, "", 0, 0, checkpoint.status().message()});
    } else {
      report.unreadable = checkpoint.status();
    }
    return report;
  }
  report.manifest = checkpoint->manifest_digest;
  report.bytes = checkpoint->manifest.payload_bytes();
  report.tensors = checkpoint->manifest.tensors.size();

  const auto reader = storage::VersionReader::open(*run.store, uid);
  if (reader) {
    Progress progress("verifying " + label_of(run, uid));
    report.findings = reader->verify([&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
  } else if (!is_damage(reader.code())) {
    report.unreadable = reader.status();
    return report;
  } else {
    // The version does not open: report every file that is not as it should be.
    for (std::size_t i = 0; i < checkpoint->files.size(); ++i) {
      const storage::FileEntry& file = checkpoint->manifest.files[i];
      const auto& object = checkpoint->files[i];
      const std::uint64_t there = object ? object->bytes() : 0;
      if (object && there == file.bytes) continue;
      const StatusCode code = there < file.bytes ? StatusCode::incomplete : StatusCode::corrupt;
      const std::string what =
          object ? fmt::format("the file has {} bytes instead of {}", there, file.bytes) : "the file is missing";
      report.findings.push_back({code, file.name, "", std::min(there, file.bytes), std::max(there, file.bytes),
                                 what + lost_tensors(checkpoint->manifest, i, there)});
    }
  }
  // Files of a version that a living session is removing vanish one by one: the version is gone, not damaged.
  if (!report.findings.empty() && run.store->open(manifest).code() == StatusCode::not_found) {
    report.findings.clear();
    report.removed = true;
  }
  return report;
}

}  // namespace holdfast::tools
