// An Error that nobody catches ends the program with its one sentence instead of an abort.
#pragma once

namespace holdfast {

/// Makes std::terminate print an uncaught holdfast::Error and exit with code 1; anything else goes on to the handler
/// that was there. Call again after another handler was set, to stand before it.
void report_uncaught_errors();

}  // namespace holdfast
