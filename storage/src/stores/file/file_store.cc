#include "holdfast/storage/stores/file/file_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <utility>

#include "holdfast/storage/stores/object_name.h"
#include "holdfast/storage/text/text.h"
#include "stores/file/file_io.h"
#include "stores/file/file_writer.h"
#include "stores/file/process_identity.h"

namespace holdfast::storage {
namespace {

constexpr const char* kFolders[] = {"journal", "data", "hints", "metrics", "logs"};
constexpr const char* kStagedSuffix = ".tmp";

/// How an entry gets its name, best first. A probe finds the one that works in this folder.
enum class Publishing { link, rename, in_place };

/// Errors that mean "this file system cannot do it", as opposed to "it failed this time".
bool is_lack(int error) {
  return error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == EMLINK ||
         error == EXDEV || error == ENOTTY;
}

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

class FileLock final : public HostLock {
 public:
  FileLock(FileOperations& files, int fd) : files_(files), fd_(fd), pid_(::getpid()) {}
  ~FileLock() override {
    // The lock belongs to the open file, which a forked child shares: only the process that took the lock releases it.
    if (pid_ == ::getpid()) files_.unlock(fd_);
    files_.close(fd_);
  }
  std::string left_by() const override { return left_by_; }
  /// Writes the holder's name. A failed write is harmless: other processes treat an unnamed holder as unknown.
  void name_holder(std::string_view holder, std::string left_by) {
    left_by_ = std::move(left_by);
    const std::string text = std::string(holder) + "\n" + this_process();
    files_.truncate(fd_, 0);
    files_.write(fd_, text.data(), text.size(), 0);
  }

 private:
  FileOperations& files_;
  const int fd_;
  const pid_t pid_;
  std::string left_by_;
};

/// The content of the lock's file: the holder, for human readers, and its process, for state_of_process().
struct LockText {
  std::string holder;
  std::string process;
};

LockText read_lock(FileOperations& files, int fd) {
  char text[512];
  const std::int64_t got = files.read(fd, text, sizeof text, 0);
  const std::string_view all(text, static_cast<std::size_t>(std::max<std::int64_t>(got, 0)));
  const std::size_t line = all.find('\n');
  return {excerpt(all.substr(0, line)), line == std::string_view::npos ? "" : std::string(all.substr(line + 1))};
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
  StagedFile(FileOperations& files, Path temporary, Path path, Publishing publishing)
      : files_(files), temporary_(std::move(temporary)), path_(std::move(path)), publishing_(publishing) {}
  ~StagedFile() override {
    if (!published_) files_.unlink(temporary_);
  }
  Status publish() override {
    const bool by_link = publishing_ == Publishing::link;
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
  const Publishing publishing_;
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

class FileStore final : public Store {
 public:
  FileStore(const Path& run_folder, FileStoreOptions options, FileOperations& files, StepRunner& steps)
      : root_(run_folder), options_(options), files_(files), steps_(steps), pool_(std::make_shared<BufferPool>()) {
    MountInfo mount;
    if (files_.mount_info(root_, mount) >= 0) sync_is_durable_ = mount.sync_is_durable;
  }

  Capabilities capabilities() const override {
    Capabilities can;
    can.create_only_enforced = create_only_enforced_;
    can.atomic_publish = publishing_ != Publishing::in_place;
    can.durable_put = sync_is_durable_;
    can.list_after_create = true;
    can.ranged_read = true;
    can.host_lock = true;
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
        {"F1 make the folders", [&] { return make_folders(home, made_home); }},
        {"F2 sync the run's folder", [&] { return sync_or_lack(root_); }},
        {"F3 sync the folder of runs", [&] { return sync_or_lack(home); }},
        {"F4 sync that one's parent",
         [&] {
           Status status = sync_or_lack(home.parent_path());
           // If nothing was made in it, this folder may belong to another user and be inaccessible.
           if (!made_home && status.code() == StatusCode::permission_denied) return Status();
           return status;
         }},
        {"F5 probe", [&] { return probe(); }},
    });
  }

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name, std::uint64_t expected_bytes) override {
    if (Status status = writable(); !status.ok()) return status;
    return FileWriter::create(files_, root_ / name, expected_bytes, options_.direct_io, pool_);
  }

  Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes, bool durable) override {
    if (Status status = writable(); !status.ok()) return status;
    const Path path = root_ / name;
    if (publishing_ == Publishing::in_place) {
      return std::unique_ptr<StagedObject>(new StagedInPlace(files_, path, std::string(bytes), durable));
    }
    const Path temporary = path.parent_path() / ("." + path.filename().string() + kStagedSuffix);
    if (Status status = write_new_file(files_, temporary, bytes, durable); !status.ok()) return status;
    return std::unique_ptr<StagedObject>(new StagedFile(files_, temporary, path, publishing_));
  }

  Status sync_folder(const std::string& folder) override { return sync_or_lack(root_ / folder); }

  Result<std::vector<std::string>> list(const std::string& folder) const override {
    std::vector<std::string> found;
    const int listed = list_names(root_ / folder, found);
    if (listed == -ENOENT) return std::vector<std::string>();
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
    if (const int listed = list_names(folder, found); listed < 0) return status_from_errno(-listed, "list", folder);
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

  // A lock and the text that names its holder change one after the other, and the file of a dead holder is removed by
  // its name. A concurrent start between these calls could read an outdated text, or remove the file that the other
  // start has just locked. So starts have a lock of their own, which admits one start at a time:
  //
  //   L1  lock hints/start.lock; held: busy, because its holder is about to hold the session lock
  //   L2  lock hints/session.lock, creating it if it is missing; held: read who holds it
  //   L3  that process runs, or its state is unknown here: busy
  //   L4  it is gone, and a process that it had started still has the open file: remove the file, and L2 again on a new
  //       one of that name, so that the next start finds us
  //   L5  write who holds it
  //   L6  release hints/start.lock
  Result<std::unique_ptr<HostLock>> lock(std::string_view holder) override {
    LockText present;
    const auto start = lock_file(root_ / "hints" / "start.lock", present);
    if (start.code() == StatusCode::busy) return Status(StatusCode::busy, "another process, which is starting now");
    if (start.code() == StatusCode::permission_denied) return lock_of_another_user();
    if (!start) return start.status();

    const Path path = root_ / "hints" / "session.lock";
    std::string left_by;
    auto held = lock_file(path, present);
    if (held.code() == StatusCode::permission_denied) return lock_of_another_user();
    if (held.code() == StatusCode::busy && state_of_process(present.process) == ProcessState::gone) {
      if (files_.unlink(path) < 0) return held.status();
      left_by = present.holder;
      held = lock_file(path, present);
    }
    if (!held) return held.status();
    (*held)->name_holder(holder, left_by);
    return std::unique_ptr<HostLock>(*std::move(held));
  }

 private:
  Status writable() const {
    if (!options_.read_only) return {};
    return {StatusCode::read_only, root_.string() + " was opened for reading only"};
  }

  /// Locks this file and creates it if it is missing. If it is busy, sets `present` to its content.
  Result<std::unique_ptr<FileLock>> lock_file(const Path& path, LockText& present) {
    const int fd = uninterrupted([&] { return files_.open(path, O_RDWR | O_CREAT, 0666); });
    if (fd < 0) return status_from_errno(-fd, "open", path);
    const int locked = uninterrupted([&] { return files_.lock(fd); });
    if (locked == 0) return std::make_unique<FileLock>(files_, fd);
    if (locked == -EAGAIN) present = read_lock(files_, fd);
    files_.close(fd);
    if (locked != -EAGAIN) return Status(StatusCode::unsupported, "no lock can be taken on " + path.string());
    return Status(StatusCode::busy, present.holder.empty() ? "another process" : present.holder);
  }

  /// The result for a lock file that this user may not write: `busy` if its text names a running holder, else
  /// `unsupported`, because this session cannot lock other sessions out.
  Status lock_of_another_user() const {
    const Path path = root_ / "hints" / "session.lock";
    LockText present;
    // O_NONBLOCK, because opening a pipe of that name would block forever.
    if (const int fd = uninterrupted([&] { return files_.open(path, O_RDONLY | O_NONBLOCK, 0); }); fd >= 0) {
      present = read_lock(files_, fd);
      files_.close(fd);
    }
    if (state_of_process(present.process) == ProcessState::running) return {StatusCode::busy, present.holder};
    return {StatusCode::unsupported, path.string() + " belongs to another user"};
  }

  int ask(const Path& path, FileInfo& info) const {
    return uninterrupted([&] { return files_.status(path, info); });
  }
  int list_names(const Path& folder, std::vector<std::string>& names) const {
    return uninterrupted([&] {
      names.clear();
      return files_.list(folder, names);
    });
  }

  bool is_folder(const Path& path) const {
    FileInfo info;
    return ask(path, info) >= 0 && info.is_directory;
  }

  Status make_folder(const Path& path) {
    if (is_folder(path)) return {};
    const int made = uninterrupted([&] { return files_.make_directory(path); });
    if (made >= 0 || (made == -EEXIST && is_folder(path))) return {};
    if (made == -EEXIST) {
      if (const std::string link = broken_link(path); !link.empty()) {
        return {StatusCode::not_found, link +
                                           "; make what it leads to, mount it, or choose another folder with "
                                           "--holdfast.dir"};
      }
      return {StatusCode::invalid, path.string() +
                                       " is a file where a folder is needed; move it away or choose another "
                                       "folder with --holdfast.dir"};
    }
    return status_from_errno(-made, "make the folder", path);
  }

  /// "PATH is a link to TARGET, which is not there"; empty if it is not a link or its target exists.
  std::string broken_link(const Path& path) const {
    boost::system::error_code error;
    const Path target = boost::filesystem::read_symlink(path, error);
    FileInfo info;
    const int asked = error ? 0 : ask(path, info);
    if (asked == -ELOOP) return path.string() + " is a link that leads in a circle";
    return asked < 0 ? path.string() + " is a link to " + target.string() + ", which is not there" : "";
  }

  /// Refuses a folder of runs that is itself a run, because this would begin another run inside it. If the inner run
  /// already exists, it counts as intended.
  Status is_no_run(const Path& home) const {
    if (!is_folder(home / "journal") || is_folder(root_ / "journal")) return {};
    std::vector<std::string> names;
    if (list_names(home / "journal", names) < 0) return {};
    const auto is_entry = [](const std::string& name) { return parse_entry_name("journal/" + name).has_value(); };
    if (std::none_of(names.begin(), names.end(), is_entry)) return {};
    const Path name = home.filename();
    return {StatusCode::invalid,
            home.string() +
                " is itself a run, not a folder of runs: give the folder that holds it, "
                "--holdfast.dir " +
                home.parent_path().string() +
                (name == root_.filename() ? "" : ", with --holdfast.run " + name.string() + " for that run")};
  }

  Status make_folders(const Path& home, bool& made_home) {
    if (!is_folder(home)) {
      // If several levels of the path are missing, it is more likely a typing error or an unmounted drive.
      FileInfo info;
      const int asked = ask(home.parent_path(), info);
      if (asked == -ENOENT || asked == -ELOOP) {
        const std::string link = broken_link(home.parent_path());
        return {StatusCode::not_found, "there is no folder " + home.parent_path().string() + " to make " +
                                           home.filename().string() + " in" + (link.empty() ? "" : ": " + link) +
                                           "; make it, mount it, or choose another folder with --holdfast.dir"};
      }
      made_home = true;
    } else if (Status status = is_no_run(home); !status.ok()) {
      return status;
    }
    for (const Path& folder : {home, root_}) {
      if (Status status = make_folder(folder); !status.ok()) return status;
    }
    for (const char* folder : kFolders) {
      if (Status status = make_folder(root_ / folder); !status.ok()) return status;
    }
    MountInfo mount;
    const int asked = uninterrupted([&] { return files_.mount_info(root_, mount); });
    if (asked < 0) return status_from_errno(-asked, "ask about the file system of", root_);
    sync_is_durable_ = mount.sync_is_durable;
    return {};
  }

  /// A folder that cannot be synced is not an error, but from then on this store does not claim durability.
  Status sync_or_lack(const Path& folder) {
    Status status = sync_directory(files_, folder);
    if (status.code() != StatusCode::unsupported) return status;
    sync_is_durable_ = false;
    return {};
  }

  /// Finds the best way to publish create-only that works here: link, exclusive rename, O_EXCL in place.
  Status probe() {
    const Path from = root_ / "hints" / (".probe-" + std::to_string(::getpid()));
    const Path to = from.string() + ".published";
    files_.unlink(from);
    files_.unlink(to);
    Status status = write_new_file(files_, from, "probe", false);
    if (status.ok()) {
      int result = uninterrupted([&] { return files_.link(from, to); });
      if (result >= 0) {
        result = uninterrupted([&] { return files_.link(from, to); });
        if (result == -EEXIST) publishing_ = Publishing::link;
        create_only_enforced_ = result == -EEXIST;
      } else if (is_lack(-result)) {
        result = probe_rename(from, to, status);
      }
      if (status.ok() && result < 0 && result != -EEXIST && !is_lack(-result)) {
        status = status_from_errno(-result, "publish", to);
      }
      if (status.ok() && result != -EEXIST) status = probe_in_place(from);
    }
    files_.unlink(from);
    files_.unlink(to);
    return status;
  }

  int probe_rename(const Path& from, const Path& to, Status& status) {
    int result = uninterrupted([&] { return files_.rename_exclusive(from, to); });
    if (result < 0) return result;
    status = write_new_file(files_, from, "probe", false);
    if (!status.ok()) return 0;
    result = uninterrupted([&] { return files_.rename_exclusive(from, to); });
    if (result == -EEXIST) publishing_ = Publishing::rename;
    create_only_enforced_ = result == -EEXIST;
    return result;
  }

  Status probe_in_place(const Path& from) {
    publishing_ = Publishing::in_place;
    Status first = write_new_file(files_, from, "probe", false);
    if (!first.ok() && first.code() != StatusCode::already_exists) return first;
    const int fd = uninterrupted([&] { return files_.open(from, O_WRONLY | O_CREAT | O_EXCL, 0666); });
    if (fd >= 0) files_.close(fd);
    create_only_enforced_ = fd == -EEXIST;
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
  Publishing publishing_ = Publishing::link;
  bool create_only_enforced_ = false;
  bool sync_is_durable_ = false;
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
