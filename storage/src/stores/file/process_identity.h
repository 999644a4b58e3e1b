// Which process wrote something down, so that another one of the same machine can tell whether it still runs.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::storage {

/// This process in one line: its pid, when it started, and the boot and pid namespace in which both mean something.
std::string this_process();

enum class ProcessState { running, gone, unknown };

/// What became of the process that wrote `line`. Unknown where it is of another machine, another boot or another
/// container, or where the line is not one of ours.
ProcessState state_of_process(std::string_view line);

}  // namespace holdfast::storage
