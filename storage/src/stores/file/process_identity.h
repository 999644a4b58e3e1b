// Identifies the process that wrote a text, so that another process of the same machine can tell whether it still runs.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::storage {

/// This process in one line: its pid, its start time, and the boot and pid namespace in which both are valid.
std::string this_process();

enum class ProcessState { running, gone, unknown };

/// The state of the process that wrote `line`. Unknown for another machine, another boot or another container, and for
/// a line that this_process() did not write.
ProcessState state_of_process(std::string_view line);

}  // namespace holdfast::storage
