// What a process can see of its machine: environment variables, small files, and the mount table. Every decision about
// platforms is a function of these values, so a test can make any machine of text.
//
// Sources: proc(5) and proc_pid_mountinfo(5), the format of /proc/PID/mountinfo.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

struct Mount {
  std::string point;   // "/content/drive"
  std::string type;    // "fuse.drive"
  std::string source;  // "drive", "server:/export", "/dev/sda1"; informative only
  std::string root;    // the mounted folder of its file system; "/" if all of it
  bool read_only = false;
};

/// The content of a small file, or empty text for a folder; nothing if the path does not exist or cannot be read.
using ReadFile = std::function<std::optional<std::string>(const std::string& path)>;

struct Surroundings {
  std::map<std::string, std::string> environment;
  ReadFile read = {};
  std::vector<Mount> mounts;  // in the order of the mount table: a later mount covers an earlier one

  /// A variable's value, or nothing if it is not set.
  std::optional<std::string> variable(const std::string& name) const;
  bool exists(const std::string& path) const { return read && read(path).has_value(); }
};

/// Those of this process. It touches no mounted file system, so a mount that hangs cannot block it: whoever decides
/// from the result reads only files of /proc, /sys and the root file system.
Surroundings look_around();

/// The lines of /proc/PID/mountinfo; lines of another form are left out.
std::vector<Mount> parse_mounts(std::string_view mountinfo);

/// The mount that holds an absolute path, which need not exist; null without a mount table. Symbolic links are not
/// followed.
const Mount* mount_of(std::string_view path, const std::vector<Mount>& mounts);

}  // namespace holdfast
