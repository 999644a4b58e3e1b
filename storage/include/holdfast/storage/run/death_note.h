// A process that dies of a diagnosed cause says so in the journal while it dies, so that a version which kills the
// program twice is passed over, and one that was merely interrupted is not. Diagnosed are SIGSEGV, SIGBUS, SIGFPE,
// SIGABRT and an uncaught exception; SIGKILL, SIGTERM and running out of memory leave nothing behind.
//
// Works on stores that are local folders. The note is prepared while the process is well; the handler only opens,
// writes, syncs and closes. Handlers that were there before run afterwards, so core dumps and messages stay.
#pragma once

#include <cstdint>

#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage {

/// Arms the handlers for this process: at most one note at a time, for a cause in any thread. A stack that overflows is
/// a cause that can be noted in threads that called this, or that have an alternative signal stack of their own.
/// `note.kind` must be death; reason and `details.steps` are filled in when it is written.
void arm_death_note(const Path& run_folder, const Note& note);
/// How many steps were completed since loading; async-signal-safe reads use it.
void death_note_steps(std::uint64_t steps);
/// Nothing will be written any more: the version has proved itself, or the session ended.
void disarm_death_note();

}  // namespace holdfast::storage
