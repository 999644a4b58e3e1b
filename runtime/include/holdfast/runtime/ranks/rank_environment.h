// This process's rank, from its launcher's environment variables. The launcher is torchrun, holdfast launch, anything
// that sets RANK and WORLD_SIZE as they do, Slurm's srun, the mpirun of Open MPI, MPICH, Intel MPI, MVAPICH or Cray, or
// IBM's jsrun. Without a launcher the process is rank 0 of 1.
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
  bool local_known = true;            // the launcher gave both; else the rendezvous finds them
  std::string address = "127.0.0.1";  // of rank 0's store
  std::uint16_t port = 0;
  std::string launcher = "";          // for messages; empty: none
  bool launcher_has_store = false;    // torchrun's agent listens at address:port itself
  std::optional<int> listen_fd = {};  // rank 0: a socket that already listens there
  std::string attempt = "0";          // distinguishes the keys of one start from those of the next
};

/// Reads this process's environment. Throws Error(invalid), naming the variable, if a launcher's variables are
/// incomplete or contradict each other.
RankEnvironment read_rank_environment();

namespace detail {

/// Returns a variable's value, or nothing if it is not set.
using Lookup = std::function<std::optional<std::string>(std::string_view name)>;

/// Reads the variables that `lookup` gives; the errors are the same. `mpi_launcher`: names the process that started all
/// ranks of this host, for MPI launchers whose variables do not distinguish two jobs; empty if unknown.
RankEnvironment read_rank_environment(const Lookup& lookup, const std::string& mpi_launcher = {});

/// The first host of a Slurm node list: "gpu[03-05,09],login1" gives "gpu03".
std::string first_host(std::string_view node_list);

}  // namespace detail
}  // namespace holdfast
