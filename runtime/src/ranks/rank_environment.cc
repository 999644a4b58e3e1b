#include "holdfast/runtime/ranks/rank_environment.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/platform/launcher.h"
#include "process/job_id.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// Lower ports are for services, higher ones for the system's outgoing connections (Linux: from 32768).
constexpr std::uint32_t kFirstPort = 15000;
constexpr std::uint32_t kPorts = 15000;

class Variables {
 public:
  Variables(const detail::Lookup& lookup, std::string launcher) : lookup_(lookup), launcher_(std::move(launcher)) {}

  bool has(std::string_view name) const { return lookup_(name).has_value(); }
  std::string text(std::string_view name, const std::string& fallback = {}) const {
    return lookup_(name).value_or(fallback);
  }
  int number(std::string_view name) const {
    const auto found = lookup_(name);
    if (!found) {
      throw Error(StatusCode::invalid,
                  fmt::format("{} started this process but {} is not set; start it with {}, or unset the others to run "
                              "as one rank",
                              launcher_, name, launcher_));
    }
    int value = 0;
    const auto [end, error] = std::from_chars(found->data(), found->data() + found->size(), value);
    if (error != std::errc() || end != found->data() + found->size() || value < 0) {
      throw Error(StatusCode::invalid,
                  fmt::format("{}={} in the environment is not a whole number of 0 or more", name, *found));
    }
    return value;
  }
  int number(std::string_view name, int fallback) const { return has(name) ? number(name) : fallback; }

 private:
  const detail::Lookup& lookup_;
  std::string launcher_;
};

// The port depends on the job, because jobs on one host must not use each other's stores.
std::uint16_t port_of(std::string_view job) {
  std::uint32_t hash = 2166136261;  // FNV-1a (Fowler, Noll, Vo)
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return static_cast<std::uint16_t>(kFirstPort + hash % kPorts);
}

RankEnvironment checked(RankEnvironment ranks) {
  const auto within = [&](int rank, int size, const char* what) {
    if (size >= 1 && rank < size) return;
    throw Error(StatusCode::invalid,
                fmt::format("{} gives this process {} {} of {}; ranks count from 0 to one below the size",
                            ranks.launcher, what, rank, size));
  };
  within(ranks.rank, ranks.world_size, "rank");
  within(ranks.local_rank, ranks.local_world_size, "local rank");
  return ranks;
}

void read_address(const Variables& variables, RankEnvironment& ranks, const std::string& address, std::uint16_t port) {
  ranks.address = variables.text("MASTER_ADDR", address);
  const int given = variables.number("MASTER_PORT", port);
  if (given < 1 || given > 65535) {
    throw Error(StatusCode::invalid, fmt::format("MASTER_PORT={} in the environment is not a port", given));
  }
  ranks.port = static_cast<std::uint16_t>(given);
}

// Reads both variables or none.
void read_place_on_host(const Variables& variables, RankEnvironment& ranks, std::string_view rank,
                        std::string_view size) {
  ranks.local_known = variables.has(rank) && (variables.has(size) || ranks.world_size == 1);
  if (!ranks.local_known) {
    ranks.local_known = ranks.world_size == 1;
    return;
  }
  ranks.local_rank = variables.number(rank);
  ranks.local_world_size = variables.number(size, ranks.world_size);
}

RankEnvironment of_torchrun(const detail::Lookup& lookup) {
  // holdfast launch removes an outer torchrun's variables, so one that is set comes from an inner torchrun.
  const bool ours = lookup(detail::kLaunchVariable) && !lookup("TORCHELASTIC_USE_AGENT_STORE");
  const Variables variables(lookup, ours ? "holdfast launch" : "torchrun");
  RankEnvironment ranks;
  ranks.launcher = ours ? "holdfast launch" : "torchrun";
  ranks.rank = variables.number("RANK");
  ranks.world_size = variables.number("WORLD_SIZE");
  read_place_on_host(variables, ranks, "LOCAL_RANK", "LOCAL_WORLD_SIZE");
  if (ranks.world_size > 1 && (!variables.has("MASTER_ADDR") || !variables.has("MASTER_PORT"))) {
    throw Error(StatusCode::invalid,
                "WORLD_SIZE is set, but MASTER_ADDR and MASTER_PORT are not both set: they are the address of rank 0; "
                "start with holdfast launch or torchrun, which set them");
  }
  read_address(variables, ranks, "127.0.0.1", kFirstPort);
  ranks.launcher_has_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  ranks.attempt = variables.text("TORCHELASTIC_RESTART_COUNT", "0");
  if (ours && variables.has(detail::kListenVariable)) ranks.listen_fd = variables.number(detail::kListenVariable);
  return checked(ranks);
}

// The names of an MPI library's variables.
struct MpiNames {
  const char* launcher;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
  const char* option;  // the launcher's option that sets a variable on all ranks
};
constexpr MpiNames kMpi[] = {
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "-x MASTER_ADDR=<the host of rank 0>"},
    {"mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE",
     "MASTER_ADDR=<the host of rank 0> in front of the program"},
    {"jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE",
     "-E MASTER_ADDR=<the host of rank 0>"},
    // Hydra, the launcher of MPICH and Intel MPI; Cray's has other names for the last two.
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "-genv MASTER_ADDR <the host of rank 0>"},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE", "--env MASTER_ADDR=<the host of rank 0>"},
};

// The names that are set: those of the library whose local rank is set, else of the first whose size is set.
const MpiNames* mpi_of(const detail::Lookup& lookup) {
  const MpiNames* found = nullptr;
  for (const MpiNames& names : kMpi) {
    if (!lookup(names.size)) continue;
    if (lookup(names.local_rank)) return &names;
    if (found == nullptr) found = &names;
  }
  return found;
}

RankEnvironment of_mpi(const detail::Lookup& lookup, const MpiNames& names, const std::string& launcher) {
  const Variables variables(lookup, names.launcher);
  RankEnvironment ranks;
  ranks.launcher = names.launcher;
  ranks.rank = variables.number(names.rank);
  ranks.world_size = variables.number(names.size);
  read_place_on_host(variables, ranks, names.local_rank, names.local_size);
  if (ranks.local_known && ranks.local_world_size < ranks.world_size && !variables.has("MASTER_ADDR")) {
    throw Error(StatusCode::invalid, fmt::format("{0} started ranks on several hosts, but MASTER_ADDR is not set to "
                                                 "the host of rank 0; add {1} to {0}'s options",
                                                 names.launcher, names.option));
  }
  // The launcher's own number for the job is alike on all its ranks: Open MPI 4 and older, then version 5, Cray. Else
  // the batch system's number is used.
  std::string job;
  for (const char* name : {"OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE", "PALS_APID", "JSM_NAMESPACE", "SLURM_JOB_ID",
                           "PBS_JOBID", "LSB_JOBID"}) {
    if (job.empty()) job = variables.text(name);
  }
  // Without an address all ranks are on this host, and one process here started them.
  if (!variables.has("MASTER_ADDR")) job += launcher;
  read_address(variables, ranks, "127.0.0.1", port_of(job));
  return checked(ranks);
}

// srun sets PMI's variables too, but its own ones contain more. A launcher under Slurm starts its ranks from tasks of
// its own, one per host; their task numbers are also set and have another meaning.
bool are_sruns_own(const detail::Lookup& lookup, const MpiNames& names) {
  const auto tasks = lookup("SLURM_STEP_NUM_TASKS") ? lookup("SLURM_STEP_NUM_TASKS") : lookup("SLURM_NTASKS");
  return names.rank == std::string_view("PMI_RANK") && lookup(names.rank) == lookup("SLURM_PROCID") &&
         lookup(names.size) == tasks;
}

RankEnvironment of_slurm(const detail::Lookup& lookup) {
  const Variables variables(lookup, "srun");
  RankEnvironment ranks;
  ranks.launcher = "srun";
  ranks.rank = variables.number("SLURM_PROCID");
  ranks.world_size = variables.has("SLURM_STEP_NUM_TASKS") ? variables.number("SLURM_STEP_NUM_TASKS")
                                                           : variables.number("SLURM_NTASKS");
  ranks.local_rank = variables.number("SLURM_LOCALID");
  // "4(x2),3": tasks on the nodes in order; a rank needs the number on its own node.
  const int node = variables.number("SLURM_NODEID", 0);
  std::string_view counts;
  const std::string all = variables.text("SLURM_STEP_TASKS_PER_NODE", std::to_string(ranks.world_size));
  counts = all;
  for (int at = 0; !counts.empty();) {
    const std::string_view item = counts.substr(0, counts.find(','));
    int tasks = 0, times = 1;
    const auto parsed = std::from_chars(item.data(), item.data() + item.size(), tasks);
    if (const auto x = item.find("(x"); x != std::string_view::npos) {
      std::from_chars(item.data() + x + 2, item.data() + item.size(), times);
    }
    if (parsed.ec != std::errc()) break;
    at += times;
    if (node < at) {
      ranks.local_world_size = tasks;
      break;
    }
    counts.remove_prefix(std::min(counts.size(), item.size() + 1));
  }
  const std::string nodes = variables.text("SLURM_STEP_NODELIST", variables.text("SLURM_NODELIST", "127.0.0.1"));
  const bool one_host = ranks.local_world_size == ranks.world_size;
  read_address(variables, ranks, one_host ? "127.0.0.1" : detail::first_host(nodes),
               port_of(variables.text("SLURM_JOB_ID") + "." + variables.text("SLURM_STEP_ID")));
  return checked(ranks);
}

}  // namespace

RankEnvironment detail::read_rank_environment(const Lookup& lookup, const std::string& mpi_launcher) {
  if (lookup("RANK") || lookup("WORLD_SIZE")) return of_torchrun(lookup);
  // A batch script without srun has a task number too, but is one process, regardless of the job's tasks.
  const bool is_slurm = lookup("SLURM_PROCID") && lookup("SLURM_STEP_ID");
  if (const MpiNames* names = mpi_of(lookup); names && !(is_slurm && are_sruns_own(lookup, *names))) {
    return of_mpi(lookup, *names, mpi_launcher);
  }
  if (is_slurm) return of_slurm(lookup);
  if (const auto rank = lookup("PMIX_RANK")) {
    throw Error(StatusCode::invalid,
                fmt::format("a launcher set rank {} (PMIX_RANK) but not the number of ranks: set RANK, WORLD_SIZE, "
                            "MASTER_ADDR and MASTER_PORT for each rank, or unset PMIX_RANK to run as one rank",
                            *rank));
  }
  return {};
}

RankEnvironment read_rank_environment() {
  const detail::Lookup lookup = [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
  return detail::read_rank_environment(lookup, mpi_launcher_id());
}

std::string detail::first_host(std::string_view node_list) {
  std::string host;
  for (std::size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host += node_list[i];
      continue;
    }
    // "[03-05,09]": the first number, then the text after the bracket.
    const std::size_t close = node_list.find(']', i);
    const std::string_view inside = node_list.substr(i + 1, close == std::string_view::npos ? close : close - i - 1);
    host += inside.substr(0, inside.find_first_of("-,"));
    if (close == std::string_view::npos) break;
    i = close;
  }
  return host;
}

}  // namespace holdfast
