// This machine's name, for messages and heartbeats.
#pragma once

#include <unistd.h>

#include <string>

namespace holdfast {

inline std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace holdfast
