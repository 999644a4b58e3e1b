// What a session leaves to later ones in the same process: a program may train in several phases, each with a session
// of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

struct EarlierSessions {
  char** argv = nullptr;               // the argv that the first session was given
  std::vector<std::string> arguments;  // the session's own arguments, which it removed from argv
  std::optional<std::uint64_t> seed;   // of the generators, which keep their present state
};

EarlierSessions& earlier_sessions();

}  // namespace holdfast
