#include "stores/file/run_folders.h"

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <string>
#include <vector>

#include "holdfast/storage/stores/object_name.h"
#include "stores/file/file_io.h"

namespace holdfast::storage {
namespace {

constexpr const char* kFolders[] = {"journal", "data", "hints", "metrics", "logs"};

int ask(FileOperations& files, const Path& path, FileInfo& info) {
  return uninterrupted([&] { return files.status(path, info); });
}
bool is_folder(FileOperations& files, const Path& path) {
  FileInfo info;
  return ask(files, path, info) >= 0 && info.is_directory;
}

/// "PATH is a link to TARGET, which does not exist"; empty if it is not a link or its target exists.
std::string broken_link(FileOperations& files, const Path& path) {
  boost::system::error_code error;
  const Path target = boost::filesystem::read_symlink(path, error);
  FileInfo info;
  const int asked = error ? 0 : ask(files, path, info);
  if (asked == -ELOOP) return path.string() + " is a link that leads in a circle";
  return asked < 0 ? path.string() + " is a link to " + target.string() + ", which does not exist" : "";
}

Status make_folder(FileOperations& files, const Path& path) {
  if (is_folder(files, path)) return {};
  const int made = uninterrupted([&] { return files.make_directory(path); });
  if (made >= 0 || (made == -EEXIST && is_folder(files, path))) return {};
  if (made == -EEXIST) {
    if (const std::string link = broken_link(files, path); !link.empty()) {
      return {StatusCode::not_found, link +
                                         "; create or mount its target, or choose another folder with "
                                         "--holdfast.dir"};
    }
    return {StatusCode::invalid, path.string() +
                                     " is a file where a folder is needed; move it away or choose another "
                                     "folder with --holdfast.dir"};
  }
  return status_from_errno(-made, "make the folder", path);
}

/// Refuses a folder of runs that is itself a run, because this would begin another run inside it. If the inner run
/// already exists, it counts as intended.
Status is_no_run(FileOperations& files, const Path& home, const Path& root) {
  if (!is_folder(files, home / "journal") || is_folder(files, root / "journal")) return {};
  std::vector<std::string> names;
  if (list_names(files, home / "journal", names) < 0) return {};
  const auto is_entry = [](const std::string& name) { return parse_entry_name("journal/" + name).has_value(); };
  if (std::none_of(names.begin(), names.end(), is_entry)) return {};
  const Path name = home.filename();
  return {StatusCode::invalid,
          home.string() +
              " is itself a run, not a folder of runs: give the folder that holds it, "
              "--holdfast.dir " +
              home.parent_path().string() +
              (name == root.filename() ? "" : ", with --holdfast.run " + name.string() + " for that run")};
}

}  // namespace

Status make_run_folders(FileOperations& files, const Path& root, bool& made_home) {
  const Path home = root.parent_path();
  if (!is_folder(files, home)) {
    // If several levels of the path are missing, it is more likely a typing error or an unmounted drive.
    FileInfo info;
    const int asked = ask(files, home.parent_path(), info);
    if (asked == -ENOENT || asked == -ELOOP) {
      const std::string link = broken_link(files, home.parent_path());
      return {StatusCode::not_found, "there is no folder " + home.parent_path().string() + " to make " +
                                         home.filename().string() + " in" + (link.empty() ? "" : ": " + link) +
                                         "; make it, mount it, or choose another folder with --holdfast.dir"};
    }
    made_home = true;
  } else if (Status status = is_no_run(files, home, root); !status.ok()) {
    return status;
  }
  for (const Path& folder : {home, root}) {
    if (Status status = make_folder(files, folder); !status.ok()) return status;
  }
  for (const char* folder : kFolders) {
    if (Status status = make_folder(files, root / folder); !status.ok()) return status;
  }
  return {};
}

}  // namespace holdfast::storage
