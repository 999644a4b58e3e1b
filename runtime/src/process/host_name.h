// What this machine is called, in sentences and records, and what tells it apart from one of the same name.
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

/// Another one after every boot; empty where it is unknown.
inline std::string boot_id() {
  std::string id;
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::getline(file, id);
  return id;
}

}  // namespace holdfast
