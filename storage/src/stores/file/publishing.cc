#include "stores/file/publishing.h"

#include <fcntl.h>
#include <unistd.h>

#include <span>
#include <string>
#include <utility>

#include "stores/file/file_io.h"

namespace holdfast::storage {
namespace {

/// Errors that mean "this file system cannot do it", as opposed to "it failed this time".
bool is_lack(int error) {
  return error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == EMLINK ||
         error == EXDEV || error == ENOTTY;
}

/// Creates `path` (O_EXCL) with these bytes. On failure removes the file that it created.
Status write_new_file(FileOperations& files, const Path& path, std::string_view bytes, bool durable) {
  const int fd = uninterrupted([&] { return files.open(path, O_WRONLY | O_CREAT | O_EXCL, 0666); });
  if (fd < 0) return status_from_errno(-fd, "create", path);
  Status status = write_fully(files, fd, std::as_bytes(std::span(bytes.data(), bytes.size())), 0, path);
  if (status.code() == StatusCode::no_space) status = no_space(files, path, bytes.size());
  if (status.ok() && durable) {
    const int synced = uninterrupted([&] { return files.sync(fd); });
    if (synced < 0) status = status_from_errno(-synced, "sync", path);
  }
  const int closed = files.close(fd);
  if (status.ok() && closed < 0 && closed != -EINTR) status = status_from_errno(-closed, "close", path);
  if (!status.ok()) files.unlink(path);
  return status;
}

/// A staged object whose bytes are in a file with a temporary name, in the same folder as its final one.
class StagedFile final : public StagedObject {
 public:
  StagedFile(FileOperations& files, Path temporary, Path path, Publishing::Way way)
      : files_(files), temporary_(std::move(temporary)), path_(std::move(path)), way_(way) {}
  ~StagedFile() override {
    if (!published_) files_.unlink(temporary_);
  }
  Status publish() override {
    const bool by_link = way_ == Publishing::Way::link;
    const int result = uninterrupted(
        [&] { return by_link ? files_.link(temporary_, path_) : files_.rename_exclusive(temporary_, path_); });
    if (result < 0) return status_from_errno(-result, "publish", path_);
    published_ = true;
    if (by_link) files_.unlink(temporary_);  // if this fails, the next session removes the second name
    return {};
  }

 private:
  FileOperations& files_;
  const Path temporary_;
  const Path path_;
  const Publishing::Way way_;
  bool published_ = false;
};

/// A staged object where neither links nor exclusive renames work: the bytes stay in memory until publish() writes them
/// under the final name.
class StagedInPlace final : public StagedObject {
 public:
  StagedInPlace(FileOperations& files, Path path, std::string bytes, bool durable)
      : files_(files), path_(std::move(path)), bytes_(std::move(bytes)), durable_(durable) {}
  Status publish() override { return write_new_file(files_, path_, bytes_, durable_); }

 private:
  FileOperations& files_;
  const Path path_;
  const std::string bytes_;
  const bool durable_;
};

Path probe_path(const Path& folder) { return folder / (".probe-" + std::to_string(::getpid())); }

Status try_in_place(FileOperations& files, const Path& from, Publishing& found) {
  found.way = Publishing::Way::in_place;
  Status first = write_new_file(files, from, "probe", false);
  if (!first.ok() && first.code() != StatusCode::already_exists) return first;
  const int fd = uninterrupted([&] { return files.open(from, O_WRONLY | O_CREAT | O_EXCL, 0666); });
  if (fd >= 0) files.close(fd);
  found.create_only_enforced = fd == -EEXIST;
  return {};
}

int probe_rename(FileOperations& files, const Path& from, const Path& to, Status& status, Publishing& found) {
  int result = uninterrupted([&] { return files.rename_exclusive(from, to); });
  if (result < 0) return result;
  status = write_new_file(files, from, "probe", false);
  if (!status.ok()) return 0;
  result = uninterrupted([&] { return files.rename_exclusive(from, to); });
  if (result == -EEXIST) found.way = Publishing::Way::rename;
  found.create_only_enforced = result == -EEXIST;
  return result;
}

}  // namespace

Status probe_in_place(FileOperations& files, const Path& folder, Publishing& found) {
  const Path path = probe_path(folder);
  files.unlink(path);
  Status status = try_in_place(files, path, found);
  files.unlink(path);
  return status;
}

Status probe_publishing(FileOperations& files, const Path& folder, Publishing& found) {
  const Path from = probe_path(folder);
  const Path to = from.string() + ".published";
  files.unlink(from);
  files.unlink(to);
  Status status = write_new_file(files, from, "probe", false);
  if (status.ok()) {
    int result = uninterrupted([&] { return files.link(from, to); });
    if (result >= 0) {
      result = uninterrupted([&] { return files.link(from, to); });
      if (result == -EEXIST) found.way = Publishing::Way::link;
      found.create_only_enforced = result == -EEXIST;
    } else if (is_lack(-result)) {
      result = probe_rename(files, from, to, status, found);
    }
    if (status.ok() && result < 0 && result != -EEXIST && !is_lack(-result)) {
      status = status_from_errno(-result, "publish", to);
    }
    if (status.ok() && result != -EEXIST) status = try_in_place(files, from, found);
  }
  files.unlink(from);
  files.unlink(to);
  return status;
}

Result<std::unique_ptr<StagedObject>> stage_file(FileOperations& files, const Path& path, std::string_view bytes,
                                                 bool durable, Publishing::Way way) {
  if (way == Publishing::Way::in_place) {
    return std::unique_ptr<StagedObject>(new StagedInPlace(files, path, std::string(bytes), durable));
  }
  const Path temporary = path.parent_path() / ("." + path.filename().string() + kStagedSuffix);
  if (Status status = write_new_file(files, temporary, bytes, durable); !status.ok()) return status;
  return std::unique_ptr<StagedObject>(new StagedFile(files, temporary, path, way));
}

}  // namespace holdfast::storage
