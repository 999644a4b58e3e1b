// What a session leaves to those that follow it in the same process: a program may train in several phases, each with a
// session of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

struct EarlierSessions {
  char** argv = nullptr;               // that the first one was given,
  std::vector<std::string> arguments;  // and the session's own arguments in it, which it took out
  std::optional<std::uint64_t> seed;   // of the generators, which go on from where they are
};

EarlierSessions& earlier_sessions();

}  // namespace holdfast
