#include "doctor/configuration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "doctor/machine_checks.h"
#include "holdfast/storage/text/nearest_name.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

Status check_platform(const std::string& name, const std::string& from) {
  const auto names = platform_names();
  if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) return {};
  return {StatusCode::invalid,
          fmt::format("{}: {} is not a platform; the nearest is {} (all: {})", from, in_quotes(name),
                      storage::nearest_name(name, names).name, fmt::join(names, ", "))};
}

std::string text_in(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

// As the option reads it: a text or a list of texts, where "none" stands for no folder.
std::vector<std::string> folders_of(const nlohmann::json& value) {
  std::vector<std::string> folders;
  for (const auto& one : value.is_array() ? value : nlohmann::json::array({value})) {
    if (one.is_string() && one != "none") folders.push_back(one.get<std::string>());
  }
  return folders;
}

// A quoted JSON text.
std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

}  // namespace

Result<Configuration> read_configuration(std::string path, const Surroundings& around) {
  Configuration found;
  if (path.empty()) path = around.variable("HOLDFAST_CONFIG").value_or("");
  if (!path.empty()) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return Status(StatusCode::not_found, "cannot open " + path + ": " + std::strerror(errno));
    std::ostringstream text;
    text << file.rdbuf();
    const auto json = nlohmann::json::parse(text.str(), nullptr, false, /*ignore_comments=*/true);
    if (!json.is_object()) {
      return Status(StatusCode::invalid, path + " is not a JSON object of options, such as { \"every\": \"10min\" }");
    }
    found = {text_in(json, "platform"), path, text_in(json, "dir"), std::nullopt};
    if (const auto mirror = json.find("mirror"); mirror != json.end()) found.mirrors = folders_of(*mirror);
  }
  if (const auto platform = around.variable("HOLDFAST_PLATFORM"); platform && !platform->empty()) {
    found.platform = *platform;
    found.platform_from = "HOLDFAST_PLATFORM";
  }
  if (const auto dir = around.variable("HOLDFAST_DIR"); dir && !dir->empty()) found.dir = *dir;
  if (const auto mirrors = around.variable("HOLDFAST_MIRROR"); mirrors && !mirrors->empty()) {
    nlohmann::json folders = nlohmann::json::array();
    std::istringstream text(*mirrors);
    for (std::string folder; std::getline(text, folder, ',');) folders.push_back(folder);
    found.mirrors = folders_of(folders);
  }
  if (found.platform == "auto") found.platform.clear();
  if (Status known = check_platform(found.platform, found.platform_from); !known.ok()) return known;
  return found;
}

Status write_configuration(const std::string& path, const Platform& platform, const Profile& profile,
                           const std::string& dir, const std::vector<std::string>& mirrors) {
  std::string text =
      fmt::format("// Written by holdfast doctor on {}.\n{{\n  // {}\n  \"platform\": {},\n  // {}\n  \"dir\": {}",
                  time_text(), printable(platform.place.reason), quoted(profile.name),
                  printable(dir == profile.home ? profile.home_reason : "the folder that was tried"), quoted(dir));
  if (!mirrors.empty()) {
    text += fmt::format(",\n  // copies of the versions\n  \"mirror\": {}", nlohmann::json(mirrors).dump());
  }
  if (const auto cloud = notices_to_set(platform)) {
    text += fmt::format(",\n  // {}\n  \"notices\": {}", printable(platform.cloud.reason), quoted(*cloud));
  }
  text += "\n}\n";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) {
    if (errno == EEXIST)
      return {StatusCode::already_exists, path + " exists and is not overwritten: remove it, or name another file"};
    return {StatusCode::unreadable, "cannot write " + path + ": " + std::strerror(errno)};
  }
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (::close(file) == 0 && written) return {};
  return {StatusCode::unreadable, "cannot write " + path + ": " + std::strerror(errno)};
}

}  // namespace holdfast::tools
