#include "holdfast/runtime/rank_environment.h"

#include <map>

#include "catch.h"
#include "holdfast/runtime/error.h"

namespace {

using namespace holdfast;
using Variables = std::map<std::string, std::string>;

RankEnvironment read(const Variables& variables) {
  return read_rank_environment([&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string refusal(const Variables& variables) {
  try {
    read(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

}  // namespace

TEST_CASE("a_process_that_nobody_launched_is_rank_0_of_1") {
  const auto ranks = read({});
  CHECK(ranks.rank == 0);
  CHECK(ranks.world_size == 1);
  CHECK(ranks.launcher.empty());
}

TEST_CASE("every_launchers_variables_say_the_same_ranks") {
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

  // torchrun inside a launch: its own store is where the ranks meet.
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
  CHECK(first_host("gpu1") == "gpu1");
  CHECK(first_host("gpu1,gpu2") == "gpu1");
  CHECK(first_host("gpu[03-05,09],login1") == "gpu03");
  CHECK(first_host("rack[1-2]node[07,08]-ib") == "rack1node07-ib");
}
