// One thing that holdfast doctor looked at, and what to do about it.
#pragma once

#include <string>
#include <vector>

namespace holdfast::tools {

enum class Grade {
  good,  // as a run needs it
  note,  // a run works; the user should know
  bad,   // a run loses work or does not start
};

struct Check {
  Grade grade = Grade::good;
  std::string area;    // "/kaggle/working/runs", "memory"
  std::string what;    // one sentence without its full stop: what was found
  std::string remedy;  // what to do; empty where nothing has to be done
};

using Checks = std::vector<Check>;

}  // namespace holdfast::tools
