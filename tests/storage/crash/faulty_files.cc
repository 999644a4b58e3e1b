#include "faulty_files.h"

#include <cerrno>
#include <cstring>

namespace holdfast::storage::crash {

std::string Fault::text() const {
  std::string result = error == 0 ? "half a transfer" : ::strerrorname_np(error);
  result += lasting == Lasting::once        ? " once"
            : lasting == Lasting::this_call ? " permanently"
                                            : " permanently, in every function";
  if (done_anyway) result += ", although the call took effect";
  return result + ", call " + std::to_string(at);
}

void FaultyFiles::arm(const Fault& fault) {
  fault_ = fault;
  armed_ = true;
  calls_ = 0;
  fired_.clear();
}

bool FaultyFiles::strikes(const char* function, const Path& path, bool transfer) {
  const std::size_t call = calls_++;
  if (!armed_ || spun()) return false;
  if (call == fault_.at) {
    fired_ = std::string(function) + " " + path.string();
    fired_function_ = function;
    transfer_ = transfer;
    return true;
  }
  if (call < fault_.at || fault_.lasting == Lasting::once) return false;
  return fault_.lasting == Lasting::all_calls || fired_function_ == function;
}

template <class Call>
auto FaultyFiles::pass(const char* function, const Path& path, Call&& call) -> decltype(call()) {
  if (!strikes(function, path) || fault_.error == 0) return call();
  if (fault_.done_anyway) call();
  return -fault_.error;
}

Path FaultyFiles::path_of(int fd) const {
  const auto found = paths_.find(fd);
  return found == paths_.end() ? Path("?") : found->second;
}

int FaultyFiles::open(const Path& path, int flags, int mode) {
  int fd = -1;
  const int result = pass("open", path, [&] { return fd = inner_.open(path, flags, mode); });
  if (result >= 0) {
    paths_[result] = path;
    failed_syncs_.erase(result);
  } else if (fd >= 0) {
    inner_.close(fd);
  }
  return result;
}

int FaultyFiles::close(int fd) {
  // On Linux, a close that fails has still closed the descriptor.
  const Path path = path_of(fd);
  const bool fails = strikes("close", path) && fault_.error != 0;
  const int result = inner_.close(fd);
  paths_.erase(fd);
  return fails ? -fault_.error : result;
}

std::int64_t FaultyFiles::read(int fd, void* into, std::size_t bytes, std::uint64_t offset) {
  const bool fails = strikes("read", path_of(fd), true);
  if (fails && fault_.error != 0) return -fault_.error;
  return fails && bytes / 2 == 0 ? 0 : inner_.read(fd, into, fails ? bytes / 2 : bytes, offset);
}

std::int64_t FaultyFiles::write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) {
  const bool fails = strikes("write", path_of(fd), true);
  if (fails && fault_.error != 0) {
    if (fault_.done_anyway) inner_.write(fd, from, bytes, offset);
    return -fault_.error;
  }
  return fails && bytes / 2 == 0 ? 0 : inner_.write(fd, from, fails ? bytes / 2 : bytes, offset);
}

int FaultyFiles::allocate(int fd, std::uint64_t bytes) {
  return pass("allocate", path_of(fd), [&] { return inner_.allocate(fd, bytes); });
}
int FaultyFiles::truncate(int fd, std::uint64_t bytes) {
  return pass("truncate", path_of(fd), [&] { return inner_.truncate(fd, bytes); });
}
int FaultyFiles::set_direct(int fd, bool direct) {
  return pass("set_direct", path_of(fd), [&] { return inner_.set_direct(fd, direct); });
}

int FaultyFiles::sync(int fd) {
  if (failed_syncs_.count(fd)) retried_sync_ = path_of(fd).string();
  const int result = pass("sync", path_of(fd), [&] { return inner_.sync(fd); });
  if (result < 0 && result != -EINTR) {
    failed_syncs_.insert(fd);
    if (sync_failed) sync_failed(fd);
  }
  return result;
}

int FaultyFiles::make_directory(const Path& path) {
  return pass("make_directory", path, [&] { return inner_.make_directory(path); });
}
int FaultyFiles::link(const Path& from, const Path& to) {
  return pass("link", to, [&] { return inner_.link(from, to); });
}
int FaultyFiles::rename_exclusive(const Path& from, const Path& to) {
  return pass("rename_exclusive", to, [&] { return inner_.rename_exclusive(from, to); });
}
int FaultyFiles::unlink(const Path& path) {
  return pass("unlink", path, [&] { return inner_.unlink(path); });
}
int FaultyFiles::list(const Path& folder, std::vector<std::string>& names) {
  return pass("list", folder, [&] { return inner_.list(folder, names); });
}
int FaultyFiles::status(const Path& path, FileInfo& info) {
  return pass("status", path, [&] { return inner_.status(path, info); });
}
int FaultyFiles::mount_info(const Path& path, MountInfo& info) {
  return pass("mount_info", path, [&] { return inner_.mount_info(path, info); });
}
int FaultyFiles::status_of(int fd, FileInfo& info) {
  return pass("status", path_of(fd), [&] { return inner_.status_of(fd, info); });
}
int FaultyFiles::lock(int fd) {
  return pass("lock", path_of(fd), [&] { return inner_.lock(fd); });
}

}  // namespace holdfast::storage::crash
