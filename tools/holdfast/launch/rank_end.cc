#include "launch/rank_end.h"

#include <csignal>
#include <cstring>

namespace holdfast::tools {

std::string RankEnd::text() const {
  return signal != 0 ? "ended by " + signal_name(signal) : "exit code " + std::to_string(code);
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

}  // namespace holdfast::tools
