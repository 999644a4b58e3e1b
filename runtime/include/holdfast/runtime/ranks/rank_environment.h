// Which rank this process is, as its launcher says in the environment: torchrun, holdfast launch, what sets RANK and
// WORLD_SIZE as they do, Slurm's srun, the mpirun of Open MPI, MPICH, Intel MPI, MVAPICH or Cray, IBM's jsrun, or
// nobody at all, which is rank 0 of 1.
//
// Sources: PyTorch, "torchrun (Elastic Launch)", environment variables; Slurm, srun(1), output environment variables;
// Open MPI FAQ, "environment variables available in an MPI process"; MPICH, "Using the Hydra Process Manager"; Intel
// MPI Library Developer Reference, environment variables; MVAPICH2 user guide; HPE Cray PALS, mpiexec(1); the PMI-1 and
// PMIx standards.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast {

struct RankEnvironment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;  // on this host: which of its GPUs
  int local_world_size = 1;
  bool local_known = true;            // the launcher said the two; else they are found when the ranks meet
  std::string address = "127.0.0.1";  // of rank 0's store
  std::uint16_t port = 0;
  std::string launcher = "";          // for sentences; empty: nobody started us
  bool launcher_has_store = false;    // torchrun's agent listens at address:port itself
  std::optional<int> listen_fd = {};  // rank 0: a socket that listens there already
  std::string attempt = "0";          // distinguishes the keys of one start from those of the next
};

/// Gives a variable's value, nothing where it is not set.
using Lookup = std::function<std::optional<std::string>(std::string_view name)>;

/// Throws Error(invalid) where a launcher's variables are incomplete or contradict each other, naming the variable.
/// `mpi_launcher`: names the process that started all ranks of this host, for MPI launchers whose variables do not tell
/// two jobs apart; empty where none is known.
RankEnvironment read_rank_environment(const Lookup& lookup, const std::string& mpi_launcher = {});
/// The same of this process's environment.
RankEnvironment read_rank_environment();

/// The first host of a Slurm node list: "gpu[03-05,09],login1" gives "gpu03".
std::string first_host(std::string_view node_list);

}  // namespace holdfast
