// From the words of a command line to a version of a run or a plain file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "inspect/run_folder.h"

namespace holdfast::tools {

/// What a VERSION on the command line names.
struct Target {
  std::shared_ptr<const RunFolder> run;  // null: a plain file
  storage::Uid uid;
  storage::Path file;
  std::vector<storage::PassedOver> passed_over;  // newer versions that cannot be loaded
};

/// Parses RUN, RUN/42, RUN@42, or the path of a manifest or a safetensors file; `number` is a second word. A run
/// without a number means its latest version: with `loadable` the newest that has all its files, else the one that a
/// session would try first.
storage::Result<Target> find_target(const std::string& text, const std::string& number, bool loadable);

}  // namespace holdfast::tools
