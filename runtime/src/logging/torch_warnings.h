// c10d logs each broken connection with a stack trace, which only the log's level can omit. The level belongs to the
// whole process and would also omit the program's own warnings (TORCH_WARN), so these are printed here instead.
//
// Threads: any. The thread that warns handles the warning; warnings in a backward pass are passed to the thread that
// called it.
#pragma once

namespace holdfast {

/// Omits c10d's messages from here on, and prints this thread's warnings. Does nothing if TORCH_CPP_LOG_LEVEL is set.
void leave_out_words_of_c10d();

/// For another thread that runs the program's code: prints its warnings too, if c10d's messages are omitted.
void print_warnings_of_this_thread();

}  // namespace holdfast
