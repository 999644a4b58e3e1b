// What holdfast launch and the programs that it starts agree on: exit codes and environment variables. It needs no
// LibTorch and no other header, because the command includes it too.
#pragma once

namespace holdfast {

/// What Session::finish() returns: the program's exit code, from which holdfast launch decides whether to restart.
enum ExitCode : int {
  kDone = 0,         // the loops are complete and the last version is saved
  kUsage = 64,       // an option is wrong (EX_USAGE)
  kSuperseded = 69,  // another session took the run over (EX_UNAVAILABLE) and continues it
  kNotSaved = 74,    // the last version could not be saved (EX_IOERR); an earlier one exists
  kRunAgain = 75,  // stopped early after a save, or a loop was left: run the same command again (EX_TEMPFAIL). A Kaggle
                   // batch run returns kDone instead, because Kaggle keeps nothing of a run that fails
};

namespace detail {

// Variables that holdfast launch sets for each rank, in addition to those of torchrun (RANK, WORLD_SIZE, …).

/// "1": the rank was started by holdfast launch.
inline constexpr const char* kLaunchVariable = "HOLDFAST_LAUNCH";
/// "0" for the first start of the launch, "1" for its first restart, ….
inline constexpr const char* kRestartVariable = "HOLDFAST_RESTART";
/// Path of the file in which rank 0 writes the step of its last saved version, in decimal digits.
inline constexpr const char* kProgressVariable = "HOLDFAST_PROGRESS";
/// For rank 0 if all ranks are on one host: the descriptor of a socket that already listens on MASTER_PORT.
inline constexpr const char* kListenVariable = "HOLDFAST_LISTEN_FD";
/// "1": holdfast launch chose OMP_NUM_THREADS, not the user. Unset otherwise.
inline constexpr const char* kThreadsVariable = "HOLDFAST_LAUNCH_THREADS";

}  // namespace detail
}  // namespace holdfast
