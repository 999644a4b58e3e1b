#include "holdfast/runtime/platform/surroundings.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace holdfast {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;  // a mount table of ten thousand lines

std::optional<std::string> read_small_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  if (S_ISDIR(status.st_mode)) return std::string();
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text(kMostBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

// mountinfo writes blanks, tabs, line feeds and backslashes as \ooo.
std::string without_escapes(std::string_view field) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string text;
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size() && is_octal(field[i + 1]) && is_octal(field[i + 2]) &&
        is_octal(field[i + 3])) {
      text += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0'));
      i += 3;
    } else {
      text += field[i];
    }
  }
  return text;
}

bool is_below(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.substr(0, folder.size()) == folder && (path.size() == folder.size() || path[folder.size()] == '/');
}

}  // namespace

std::optional<std::string> Surroundings::variable(const std::string& name) const {
  const auto found = environment.find(name);
  return found == environment.end() ? std::nullopt : std::optional(found->second);
}

Surroundings look_around() {
  Surroundings around;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view line = *entry;
    const auto equals = line.find('=');
    if (equals != std::string_view::npos) around.environment.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  around.read = read_small_file;
  around.mounts = parse_mounts(read_small_file("/proc/self/mountinfo").value_or(""));
  return around;
}

// 36 35 98:0 /root /point ro,noatime shared:1 … - type source super-options
std::vector<Mount> parse_mounts(std::string_view mountinfo) {
  std::vector<Mount> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string skipped, root, point, options, word;
    Mount mount;
    if (!(words >> skipped >> skipped >> skipped >> root >> point >> options)) continue;
    while (words >> word && word != "-") {
    }
    if (!(words >> mount.type >> mount.source)) continue;
    mount.root = without_escapes(root);
    mount.point = without_escapes(point);
    mount.source = without_escapes(mount.source);
    mount.read_only = ("," + options + ",").find(",ro,") != std::string::npos;
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

const Mount* mount_of(std::string_view path, const std::vector<Mount>& mounts) {
  const Mount* found = nullptr;
  for (const Mount& mount : mounts) {
    if (is_below(path, mount.point) && (found == nullptr || mount.point.size() >= found->point.size())) found = &mount;
  }
  return found;
}

}  // namespace holdfast
