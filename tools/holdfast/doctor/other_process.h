// Work that may hang for good, such as a call on a mount whose server is gone, in a process of its own.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "holdfast/storage/status.h"

namespace holdfast::tools {

/// What `work` returns. `unreadable` after `patience`, or if its process ends early; a process that hangs is killed,
/// and one that cannot be killed is left to end by itself. `what` begins the sentence: "/mnt/drive".
storage::Result<std::string> in_other_process(const std::string& what, const std::function<std::string()>& work,
                                              std::chrono::seconds patience);

}  // namespace holdfast::tools
