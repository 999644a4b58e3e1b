#include "stores/file/run_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "holdfast/storage/text/text.h"
#include "stores/file/file_io.h"
#include "stores/file/process_identity.h"

namespace holdfast::storage {
namespace {

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

/// Locks this file and creates it if it is missing. If it is busy, sets `present` to its content.
Result<std::unique_ptr<FileLock>> lock_file(FileOperations& files, const Path& path, LockText& present) {
  const int fd = uninterrupted([&] { return files.open(path, O_RDWR | O_CREAT, 0666); });
  if (fd < 0) return status_from_errno(-fd, "open", path);
  const int locked = uninterrupted([&] { return files.lock(fd); });
  if (locked == 0) return std::make_unique<FileLock>(files, fd);
  if (locked == -EAGAIN) present = read_lock(files, fd);
  files.close(fd);
  if (locked != -EAGAIN) return Status(StatusCode::unsupported, "no lock can be taken on " + path.string());
  return Status(StatusCode::busy, present.holder.empty() ? "another process" : present.holder);
}

/// The result for a lock file that this user may not write: `busy` if its text names a running holder, else
/// `unsupported`, because this session cannot lock other sessions out.
Status lock_of_another_user(FileOperations& files, const Path& path) {
  LockText present;
  // O_NONBLOCK, because opening a pipe of that name would block forever.
  if (const int fd = uninterrupted([&] { return files.open(path, O_RDONLY | O_NONBLOCK, 0); }); fd >= 0) {
    present = read_lock(files, fd);
    files.close(fd);
  }
  if (state_of_process(present.process) == ProcessState::running) return {StatusCode::busy, present.holder};
  return {StatusCode::unsupported, path.string() + " belongs to another user"};
}

}  // namespace

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
Result<std::unique_ptr<HostLock>> lock_run(FileOperations& files, const Path& hints, std::string_view holder) {
  const Path path = hints / "session.lock";
  LockText present;
  const auto start = lock_file(files, hints / "start.lock", present);
  if (start.code() == StatusCode::busy) return Status(StatusCode::busy, "another process, which is starting now");
  if (start.code() == StatusCode::permission_denied) return lock_of_another_user(files, path);
  if (!start) return start.status();

  std::string left_by;
  auto held = lock_file(files, path, present);
  if (held.code() == StatusCode::permission_denied) return lock_of_another_user(files, path);
  if (held.code() == StatusCode::busy && state_of_process(present.process) == ProcessState::gone) {
    if (files.unlink(path) < 0) return held.status();
    left_by = present.holder;
    held = lock_file(files, path, present);
  }
  if (!held) return held.status();
  (*held)->name_holder(holder, left_by);
  return std::unique_ptr<HostLock>(*std::move(held));
}

}  // namespace holdfast::storage
