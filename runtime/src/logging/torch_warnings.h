// c10d tells each broken connection with a stack trace, which only the log's level leaves out. The level is the
// process's, so that it would leave out the program's own warnings (TORCH_WARN), too; they are printed instead.
//
// Threads: any. A warning is handled by the thread that warns; what warns in a backward pass is given to the thread
// that called it.
#pragma once

namespace holdfast {

/// Leaves out c10d's words from here on, and prints this thread's warnings. Does nothing where TORCH_CPP_LOG_LEVEL says
/// what the user wants to read.
void leave_out_words_of_c10d();

/// For another thread that runs the program's code: prints its warnings, too, where c10d's words are left out.
void print_warnings_of_this_thread();

}  // namespace holdfast
