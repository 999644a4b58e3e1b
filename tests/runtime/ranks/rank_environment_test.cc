#include "holdfast/runtime/ranks/rank_environment.h"

#include <array>
#include <map>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "message_parts.h"

namespace {

using namespace holdfast;
using Variables = std::map<std::string, std::string>;

RankEnvironment read(const Variables& variables, const std::string& mpi_launcher = {}) {
  const holdfast::detail::Lookup lookup = [&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  return holdfast::detail::read_rank_environment(lookup, mpi_launcher);
}

std::string refusal(const Variables& variables) {
  try {
    read(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a_process_without_a_launcher_is_rank_0_of_1") {
  const auto ranks = read({});
  CHECK(ranks.rank == 0);
  CHECK(ranks.world_size == 1);
  CHECK(ranks.launcher.empty());
}

TEST_CASE("every_launchers_variables_give_the_same_ranks") {
  const auto torchrun = read({{"RANK", "5"},
                              {"WORLD_SIZE", "8"},
                              {"LOCAL_RANK", "1"},
                              {"LOCAL_WORLD_SIZE", "4"},
                              {"MASTER_ADDR", "node0"},
                              {"MASTER_PORT", "29511"},
                              {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                              {"TORCHELASTIC_RESTART_COUNT", "2"}});
  CHECK(torchrun.rank == 5);
  CHECK(torchrun.local_world_size == 4);
  CHECK(torchrun.address == "node0");
  CHECK(torchrun.port == 29511);
  CHECK(torchrun.launcher_has_store);
  CHECK(torchrun.attempt == "2");

  const auto ours = read({{"HOLDFAST_LAUNCH", "1"},
                          {"HOLDFAST_LISTEN_FD", "7"},
                          {"RANK", "0"},
                          {"WORLD_SIZE", "2"},
                          {"LOCAL_RANK", "0"},
                          {"LOCAL_WORLD_SIZE", "2"},
                          {"MASTER_ADDR", "127.0.0.1"},
                          {"MASTER_PORT", "41000"}});
  CHECK(ours.launcher == "holdfast launch");
  CHECK(ours.listen_fd == 7);
  CHECK_FALSE(ours.launcher_has_store);

  // torchrun inside a launch: the ranks meet at torchrun's own store.
  const auto inside = read({{"HOLDFAST_LAUNCH", "1"},
                            {"HOLDFAST_LISTEN_FD", "7"},
                            {"RANK", "1"},
                            {"WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "127.0.0.1"},
                            {"MASTER_PORT", "41000"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"}});
  CHECK(inside.launcher == "torchrun");
  CHECK(inside.launcher_has_store);
  CHECK_FALSE(inside.listen_fd);

  const Variables mpi = {{"OMPI_COMM_WORLD_RANK", "3"},
                         {"OMPI_COMM_WORLD_SIZE", "4"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "3"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                         {"OMPI_MCA_ess_base_jobid", "1234"}};
  const auto mpirun = read(mpi);
  CHECK(mpirun.rank == 3);
  CHECK(mpirun.address == "127.0.0.1");
  CHECK(mpirun.port >= 15000);
  Variables other = mpi;
  other["OMPI_MCA_ess_base_jobid"] = "1235";
  CHECK(read(other).port != mpirun.port);

  const auto slurm = read({{"SLURM_PROCID", "5"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_JOB_ID", "77"},
                           {"SLURM_NTASKS", "9"},
                           {"SLURM_STEP_NUM_TASKS", "7"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_NODEID", "1"},
                           {"SLURM_STEP_TASKS_PER_NODE", "4,3"},
                           {"SLURM_STEP_NODELIST", "gpu[03-04]"}});
  CHECK(slurm.rank == 5);
  CHECK(slurm.world_size == 7);
  CHECK(slurm.local_world_size == 3);
  CHECK(slurm.address == "gpu03");
}

TEST_CASE("variables_of_different_mpi_libraries_give_the_same_ranks") {
  const std::vector<std::array<const char*, 4>> libraries = {
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"},
      {"JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE"},
      {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
      {"PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"},
  };
  for (const auto& [rank, size, local_rank, local_size] : libraries) {
    CAPTURE(rank, local_rank);
    const auto one_host = read({{rank, "3"}, {size, "4"}, {local_rank, "3"}, {local_size, "4"}});
    CHECK(one_host.rank == 3);
    CHECK(one_host.world_size == 4);
    CHECK(one_host.local_rank == 3);
    CHECK(one_host.local_world_size == 4);
    CHECK(one_host.address == "127.0.0.1");
    CHECK(one_host.port >= 15000);
    const Variables two_hosts = {{rank, "3"}, {size, "4"}, {local_rank, "1"}, {local_size, "2"}};
    CHECK(contains(refusal(two_hosts), "MASTER_ADDR"));
    Variables with_address = two_hosts;
    with_address["MASTER_ADDR"] = "node0";
    CHECK(read(with_address).address == "node0");
    CHECK(read(with_address).local_rank == 1);
    CHECK(contains(refusal({{size, "4"}}), std::string(rank) + " is not set"));
  }
}

TEST_CASE("mpi_jobs_of_different_launchers_on_one_host_use_different_ports") {
  const Variables ranks = {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
  const auto port = [](const Variables& variables, const std::string& launcher) {
    return read(variables, launcher).port;
  };
  CHECK(port(ranks, "71-4000") == port(ranks, "71-4000"));
  CHECK(port(ranks, "71-4000") != port(ranks, "95-4100"));
  CHECK(port(ranks, "") == port(ranks, ""));
  Variables with_address = ranks;  // then there may be other hosts, where the launcher has a different number
  with_address["MASTER_ADDR"] = "node0";
  CHECK(port(with_address, "71-4000") == port(with_address, "95-4100"));
}

TEST_CASE("a_local_rank_that_no_launcher_gives_is_unknown") {
  const auto kube = read({{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "job-0"}, {"MASTER_PORT", "23456"}});
  CHECK(kube.rank == 5);
  CHECK_FALSE(kube.local_known);
  CHECK_FALSE(read({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}).local_known);
  CHECK(read({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}).local_known);
  CHECK(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).local_known);
  // One of the two local numbers is not enough to share a host's cores.
  CHECK_FALSE(
      read({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}})
          .local_known);
}

TEST_CASE("a_launcher_inside_a_slurm_task_is_distinguished_from_srun") {
  const Variables task = {{"SLURM_PROCID", "1"},
                          {"SLURM_STEP_ID", "0"},
                          {"SLURM_STEP_NUM_TASKS", "2"},
                          {"SLURM_LOCALID", "0"},
                          {"SLURM_STEP_NODELIST", "gpu[03-04]"},
                          {"SLURM_JOB_ID", "7"},
                          {"SLURM_NODEID", "1"},
                          {"SLURM_STEP_TASKS_PER_NODE", "1(x2)"}};
  Variables hydra = task;
  hydra.insert({{"PMI_RANK", "5"},
                {"PMI_SIZE", "8"},
                {"MPI_LOCALRANKID", "1"},
                {"MPI_LOCALNRANKS", "4"},
                {"MASTER_ADDR", "gpu03"}});
  CHECK(read(hydra).rank == 5);
  CHECK(read(hydra).world_size == 8);
  Variables srun = task;  // --mpi=pmi2
  srun.insert({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMIX_RANK", "1"}});
  CHECK(read(srun).launcher == "srun");
  CHECK(read(srun).address == "gpu03");
}

TEST_CASE("a_rank_without_a_world_size_is_refused") {
  CHECK(contains(refusal({{"PMIX_RANK", "1"}}), "PMIX_RANK"));
  CHECK(contains(refusal({{"PMIX_RANK", "1"}}), "WORLD_SIZE"));
}

TEST_CASE("a_batch_script_without_srun_is_one_rank") {
  CHECK(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_JOB_ID", "1"}}).world_size == 1);
}

TEST_CASE("incomplete_variables_are_refused_by_name") {
  CHECK(contains(refusal({{"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}}), "RANK is not set"));
  CHECK(contains(refusal({{"WORLD_SIZE", "2"}, {"RANK", "0"}}), "MASTER_ADDR and MASTER_PORT"));
  CHECK(contains(refusal({{"WORLD_SIZE", "two"}, {"RANK", "0"}}), "WORLD_SIZE=two"));
  CHECK(contains(refusal({{"WORLD_SIZE", "2"}, {"RANK", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}}),
                 "rank 2 of 2"));
  CHECK(contains(refusal({{"WORLD_SIZE", "2"}, {"RANK", "1"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "99999"}}),
                 "MASTER_PORT=99999"));
  CHECK(contains(refusal({{"OMPI_COMM_WORLD_RANK", "3"},
                          {"OMPI_COMM_WORLD_SIZE", "4"},
                          {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                          {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
                 "-x MASTER_ADDR="));
}

TEST_CASE("the_first_host_of_a_node_list_is_found") {
  CHECK(holdfast::detail::first_host("gpu1") == "gpu1");
  CHECK(holdfast::detail::first_host("gpu1,gpu2") == "gpu1");
  CHECK(holdfast::detail::first_host("gpu[03-05,09],login1") == "gpu03");
  CHECK(holdfast::detail::first_host("rack[1-2]node[07,08]-ib") == "rack1node07-ib");
}
