// Whether a checkpoint and a program are compatible: every difference between what the program tracks and what a
// version holds, found before anything is overwritten.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace holdfast {

/// Allowed differences, by name: shell patterns in which '*' matches any characters, including dots, and '?' one.
struct LoosenOptions {
  std::vector<std::string> allow_missing;        // in the program, not in the checkpoint: stays as the program made it
  std::vector<std::string> allow_unexpected;     // in the checkpoint, not in the program: left unread
  std::vector<std::string> waiting = {};         // tracked names (no patterns) that the program need not track now
  std::vector<std::string> allow_mismatch = {};  // of another shape or dtype: stays as the program made it
};

struct Difference {
  enum class Kind { missing, unexpected, shape, dtype, value };
  Kind kind = Kind::missing;
  std::string name;           // the tensor or value, as the checkpoint or the program names it
  std::string what;           // a sentence that starts with the name
  std::string track_as = {};  // how to track it if the program changes its shape; empty: that would not help
  std::string rebuild = {};   // the resizable module that was saved with other parts
};

/// The result of a comparison. A value.
struct Compatibility {
  std::string version;                  // as users write it: "42-7f3a"
  std::vector<Difference> differences;  // all that no option allows, by name
  std::vector<std::string> notes;       // sentences on what was allowed or left out, for the log
  bool has_common_names = true;         // false: the checkpoint holds nothing that the program tracks

  bool ok() const { return differences.empty(); }
  /// One message with the first `limit` differences, the number of the others, and the remedy. Empty if compatible. If
  /// another program may have made the checkpoint, it shows only a few of many differences.
  std::string message(std::size_t limit = 20) const;
};

}  // namespace holdfast
