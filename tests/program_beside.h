// Finds the programs that tests start, stop and kill.
#pragma once

#include <boost/filesystem.hpp>
#include <string>

/// The path of program `name` in the folder of the running program (build/bin).
inline std::string program_beside(const std::string& name) {
  return (boost::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}
