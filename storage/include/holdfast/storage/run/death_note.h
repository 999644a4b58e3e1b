// A process that dies of a diagnosed cause writes a note to the journal while it dies. A version that kills the
// program twice is therefore passed over, and one that was merely interrupted is not. Diagnosed causes are SIGSEGV,
// SIGBUS, SIGFPE, SIGABRT and an uncaught exception; SIGKILL, SIGTERM and running out of memory do not leave a note.
//
// Works on stores that are local folders. The note is prepared in advance; the handler only opens, writes, syncs and
// closes. Previously installed handlers run afterwards, so core dumps and messages are kept.
#pragma once

#include <cstdint>

#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage {

/// Arms the handlers for this process: at most one note at a time, for a cause in any thread. A stack overflow can be
/// noted only in threads that called this function or that have their own alternative signal stack.
/// `note.kind` must be death; reason and `details.steps` are filled in when it is written.
void arm_death_note(const Path& run_folder, const Note& note);
/// Sets how many steps were completed since loading; the signal handler reads it.
void death_note_steps(std::uint64_t steps);
/// From now on no note is written: the version counts as healthy, or the session ended.
void disarm_death_note();

}  // namespace holdfast::storage
