// This machine's name, for messages and records, and an id that distinguishes machines of the same name.
#pragma once

#include <unistd.h>

#include <fstream>
#include <string>

namespace holdfast {

inline std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

/// Changes with every boot; empty if unknown.
inline std::string boot_id() {
  std::string id;
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::getline(file, id);
  return id;
}

}  // namespace holdfast
