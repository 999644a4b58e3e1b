#include "holdfast/storage/stores/file/file_store.h"

#include <fcntl.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <mutex>
#include <utility>

#include "stores/file/file_io.h"
#include "stores/file/file_writer.h"
#include "stores/file/publishing.h"
#include "stores/file/run_folders.h"
#include "stores/file/run_lock.h"

namespace holdfast::storage {
namespace {

class FileReader final : public ObjectReader {
 public:
  FileReader(FileOperations& files, Path path, int fd, std::uint64_t bytes)
      : files_(files), path_(std::move(path)), fd_(fd), bytes_(bytes) {}
  ~FileReader() override { files_.close(fd_); }
  std::uint64_t bytes() const override { return bytes_; }
  Status read(std::uint64_t offset, std::span<std::byte> into) const override {
    return read_fully(files_, fd_, into, offset, path_);
  }

 private:
  FileOperations& files_;
  const Path path_;
  const int fd_;
  const std::uint64_t bytes_;
};

class FileStore final : public Store {
 public:
  FileStore(const Path& run_folder, FileStoreOptions options, FileOperations& files, StepRunner& steps)
      : root_(run_folder), options_(options), files_(files), steps_(steps), pool_(std::make_shared<BufferPool>()) {}

  Capabilities capabilities() const override {
    know_mount();
    Capabilities can;
    can.create_only_enforced = publishing_.create_only_enforced;
    can.atomic_publish = publishing_.way != Publishing::Way::in_place;
    can.durable_put = sync_is_durable_;
    can.list_after_create = true;
    can.ranged_read = true;
    can.host_lock = !creates_and_removes_only_;
    return can;
  }
  std::string location() const override { return root_.string(); }

  // Every folder's name must be durable before the first version inside it is acknowledged. An earlier session may have
  // died between making a folder and syncing its parent, so the syncs are made even if all folders existed.
  Status prepare() override {
    if (Status status = writable(); !status.ok()) return status;
    const Path home = root_.parent_path();
    bool made_home = false;
    return steps_.perform({
        {"F1 make the folders", [&] { return make_folders(made_home); }},
        {"F2 sync the run's folder", [&] { return sync_or_lack(root_); }},
        {"F3 sync the folder of runs", [&] { return sync_or_lack(home); }},
        {"F4 sync that one's parent",
         [&] {
           Status status = sync_or_lack(home.parent_path());
           // If nothing was made in it, this folder may belong to another user and be inaccessible.
           if (!made_home && status.code() == StatusCode::permission_denied) return Status();
           return status;
         }},
        {"F5 probe",
         [&] {
           prepared_ = true;
           return creates_and_removes_only_ ? probe_in_place(files_, root_ / "hints", publishing_)
                                            : probe_publishing(files_, root_ / "hints", publishing_);
         }},
    });
  }

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t expected_bytes) override {
    if (Status status = writable(); !status.ok()) return status;
    return FileWriter::create(files_, root_ / name, expected_bytes, options_.direct_io, pool_);
  }

  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override {
    if (Status status = writable(); !status.ok()) return status;
    return stage_file(files_, root_ / name, bytes, durable, publishing_.way);
  }

  Status sync_folder(const std::string& folder) override { return sync_or_lack(root_ / folder); }

  Result<std::vector<std::string>> list(const std::string& folder) const override {
    std::vector<std::string> found;
    const int listed = list_names(files_, root_ / folder, found);
    if (listed == -ENOENT) {
      FileInfo info;
      if (!prepared_ || uninterrupted([&] { return files_.status(root_, info); }) != -ENOENT) {
        return std::vector<std::string>();
      }
      return Status(StatusCode::unreadable, root_.string() + " has disappeared; is its drive still mounted?");
    }
    if (listed < 0) return status_from_errno(-listed, "list", root_ / folder);
    std::erase_if(found, [](const std::string& name) { return name.starts_with('.'); });
    for (std::string& name : found) name.insert(0, folder + "/");
    std::sort(found.begin(), found.end());
    return found;
  }

  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
    const Path path = root_ / name;
    // O_NONBLOCK, because opening a pipe of that name would block forever.
    const int fd = uninterrupted([&] { return files_.open(path, O_RDONLY | O_NONBLOCK, 0); });
    if (fd == -ELOOP) return Status(StatusCode::corrupt, path.string() + " is a link that leads in a circle");
    if (fd < 0) return status_from_errno(-fd, "open", path);
    FileInfo info;
    const int asked = uninterrupted([&] { return files_.status_of(fd, info); });
    if (asked < 0 || info.is_directory) {
      files_.close(fd);
      if (asked < 0) return status_from_errno(-asked, "open", path);
      return Status(StatusCode::corrupt, path.string() + " is a folder where a file should be");
    }
    return std::unique_ptr<ObjectReader>(new FileReader(files_, path, fd, info.bytes));
  }

  Status remove(const std::string& name) override {
    if (Status status = writable(); !status.ok()) return status;
    know_mount();
    if (creates_and_removes_only_) empty(root_ / name);
    const int removed = uninterrupted([&] { return files_.unlink(root_ / name); });
    return removed < 0 && removed != -ENOENT ? status_from_errno(-removed, "remove", root_ / name) : Status();
  }

  Status put(const std::string& name, std::string_view bytes) override { return write_mutable(name, bytes, O_TRUNC); }
  Status append(const std::string& name, std::string_view bytes) override {
    return write_mutable(name, bytes, O_APPEND);
  }

  Result<std::size_t> remove_staged(const std::function<bool(std::string_view)>& is_over) override {
    std::vector<std::string> found;
    const Path folder = root_ / "journal";
    if (const int listed = list_names(files_, folder, found); listed < 0)
      return status_from_errno(-listed, "list", folder);
    std::sort(found.begin(), found.end());
    std::size_t removed = 0;
    for (const std::string& name : found) {
      if (!name.starts_with('.') || !name.ends_with(kStagedSuffix)) continue;
      const std::size_t dash = name.find('-');  // ".000042-7f3a9c1e.save.json.tmp"
      if (dash == std::string::npos || !is_over(std::string_view(name).substr(dash + 1, 8))) continue;
      if (files_.unlink(folder / name) >= 0) ++removed;
    }
    return removed;
  }

  Result<std::unique_ptr<HostLock>> lock(std::string_view holder) override {
    return lock_run(files_, root_ / "hints", holder);
  }

 private:
  Status writable() const {
    if (!options_.read_only) return {};
    return {StatusCode::read_only, root_.string() + " was opened for reading only"};
  }

  Status make_folders(bool& made_home) {
    if (Status status = make_run_folders(files_, root_, made_home); !status.ok()) return status;
    MountInfo mount;
    const int asked = uninterrupted([&] { return files_.mount_info(root_, mount); });
    if (asked < 0) return status_from_errno(-asked, "ask about the file system of", root_);
    std::call_once(mount_is_known_, [] {});
    set_mount(mount);
    return {};
  }

  // Not in the constructor, because a mount that hangs blocks this call.
  void know_mount() const {
    std::call_once(mount_is_known_, [this] {
      if (MountInfo mount; files_.mount_info(root_, mount) >= 0) set_mount(mount);
    });
  }

  void set_mount(const MountInfo& mount) const {
    sync_is_durable_ = mount.sync_is_durable;
    creates_and_removes_only_ = mount.creates_and_removes_only;
  }

  /// A folder of Google Drive keeps what is removed in its trash, which counts against the quota: the bytes go first.
  void empty(const Path& path) {
    const int fd = uninterrupted([&] { return files_.open(path, O_WRONLY, 0); });
    if (fd < 0) return;
    (void)uninterrupted([&] { return files_.truncate(fd, 0); });
    files_.close(fd);
  }

  /// A folder that cannot be synced is not an error, but from then on this store does not claim durability.
  Status sync_or_lack(const Path& folder) {
    Status status = sync_directory(files_, folder);
    if (status.code() != StatusCode::unsupported) return status;
    sync_is_durable_ = false;
    return {};
  }

  Status write_mutable(const std::string& name, std::string_view bytes, int how) {
    if (Status status = writable(); !status.ok()) return status;
    const Path path = root_ / name;
    const int fd = uninterrupted([&] { return files_.open(path, O_WRONLY | O_CREAT | how, 0666); });
    if (fd < 0) return status_from_errno(-fd, "open", path);
    std::uint64_t offset = 0;  // pwrite(2) on an O_APPEND descriptor appends whatever the offset
    FileInfo info;
    if (how == O_APPEND && files_.status_of(fd, info) >= 0) offset = info.bytes;
    const Status status = write_fully(files_, fd, std::as_bytes(std::span(bytes.data(), bytes.size())), offset, path);
    files_.close(fd);
    return status;
  }

  const Path root_;
  const FileStoreOptions options_;
  FileOperations& files_;
  StepRunner& steps_;
  const std::shared_ptr<BufferPool> pool_;
  Publishing publishing_;
  mutable std::once_flag mount_is_known_;
  mutable bool sync_is_durable_ = false;
  mutable bool creates_and_removes_only_ = false;
  bool prepared_ = false;
};

}  // namespace

std::unique_ptr<Store> open_file_store(const Path& run_folder, FileStoreOptions options, FileOperations& files,
                                       StepRunner& steps) {
  // Absolute, so that a later change of the working directory does not move the run.
  boost::system::error_code error;
  // Not absolute(), because it throws for any path if the working directory is gone.
  Path absolute = run_folder.is_absolute() ? run_folder : boost::filesystem::current_path(error) / run_folder;
  absolute = absolute.lexically_normal();
  if (absolute.filename_is_dot()) absolute = absolute.parent_path();
  return std::make_unique<FileStore>(absolute, options, files, steps);
}

}  // namespace holdfast::storage
