#include "device/reproducibility.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "device/device.h"
#include "holdfast/runtime/error.h"
#include "message_parts.h"

using holdfast::choose_device;
using holdfast::DeviceKind;
using holdfast::differences;
using holdfast::Error;
using holdfast::Gpu;
using holdfast::gpu_of_two;
using holdfast::GpuFacts;
using holdfast::has_kernels_for;
using nlohmann::json;

namespace {

// As LibTorch 2.11.0+cu130 prints it.
const char* const kWheel =
    "  - NVCC architecture flags: "
    "-gencode;arch=compute_75,code=sm_75;-gencode;arch=compute_80,code=sm_80;-gencode;arch=compute_86,code=sm_86;"
    "-gencode;arch=compute_90,code=sm_90;-gencode;arch=compute_100,code=sm_100;-gencode;arch=compute_120,code=sm_120\n";

GpuFacts facts_of(Gpu gpu) {
  return {.gpus = {gpu},
          .driver_cuda = "13.0",
          .libtorch_has_cuda = true,
          .libtorch_sees_gpu = true,
          .libtorch_cuda = "13.0",
          .libtorch_architectures = kWheel};
}

std::string refused_gpu(DeviceKind wanted, const GpuFacts& facts) {
  try {
    choose_device(wanted, facts);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("kernels_fit_a_gpu_by_the_rules_of_machine_code_and_ptx") {
  CHECK_FALSE(has_kernels_for(kWheel, {"P100", 6, 0}));
  CHECK_FALSE(has_kernels_for(kWheel, {"V100", 7, 0}));
  CHECK(has_kernels_for(kWheel, {"T4", 7, 5}));
  CHECK(has_kernels_for(kWheel, {"A100", 8, 0}));
  CHECK(has_kernels_for(kWheel, {"L4", 8, 9}));
  CHECK(has_kernels_for(kWheel, {"H200", 9, 0}));
  CHECK(has_kernels_for(kWheel, {"B300", 10, 3}));
  CHECK_FALSE(has_kernels_for(kWheel, {"Thor", 11, 0}));
  CHECK(has_kernels_for("code=sm_70;code=compute_70", {"next", 13, 0}));
  CHECK_FALSE(has_kernels_for("code=sm_90a", {"B200", 10, 0}));
  CHECK_FALSE(has_kernels_for("code=sm_86", {"A100", 8, 0}));
  CHECK(has_kernels_for("", {"V100", 7, 0}));
}

TEST_CASE("a_gpu_without_kernels_is_refused_with_a_remedy_and_cpu_is_always_there") {
  const auto p100 = facts_of({"Tesla P100-PCIE-16GB", 6, 0});
  for (const DeviceKind wanted : {DeviceKind::cuda, DeviceKind::automatic}) {
    CHECK(contains(refused_gpu(wanted, p100), "no kernels for the Tesla P100-PCIE-16GB (sm_60)"));
    CHECK(contains(refused_gpu(wanted, p100), "--holdfast.device cpu"));
  }
  CHECK(choose_device(DeviceKind::cpu, p100).device.is_cpu());
  CHECK(choose_device(DeviceKind::automatic, facts_of({"T4", 7, 5})).device == c10::Device(c10::kCUDA, 0));
  CHECK(choose_device(DeviceKind::cuda, facts_of({"T4", 7, 5})).device == c10::Device(c10::kCUDA, 0));
}

TEST_CASE("each_rank_of_a_host_uses_a_different_visible_gpu") {
  const auto seen = [](std::initializer_list<Gpu> gpus) {
    auto facts = facts_of({});
    facts.gpus = gpus;
    return facts;
  };
  const Gpu h200{"H200", 9, 0, "GPU-1"}, other{"H200", 9, 0, "GPU-2"}, p100{"P100", 6, 0, "GPU-3"};
  // All GPUs are visible, or one for each rank, or two.
  CHECK(choose_device(DeviceKind::cuda, seen({h200, other}), 1, 2).device == c10::Device(c10::kCUDA, 1));
  CHECK(choose_device(DeviceKind::cuda, seen({h200, other}), 1, 2).gpu == "H200 (GPU-2)");
  CHECK(choose_device(DeviceKind::cuda, seen({other}), 1, 2).device == c10::Device(c10::kCUDA, 0));
  CHECK(choose_device(DeviceKind::cuda, seen({other}), 1, 2).gpu == "H200 (GPU-2)");
  CHECK(choose_device(DeviceKind::cuda, seen({h200, other}), 3, 4).device == c10::Device(c10::kCUDA, 1));
  // The kernels must support the rank's GPU, not the first one.
  CHECK(choose_device(DeviceKind::cuda, seen({p100, h200}), 1, 2).device == c10::Device(c10::kCUDA, 1));
  CHECK_THROWS_AS(choose_device(DeviceKind::cuda, seen({h200, p100}), 1, 2), Error);
  CHECK_THROWS_AS(choose_device(DeviceKind::cuda, seen({{"H200", 9, 0}}), 1, 2), Error);  // unknown which rank has it

  CHECK_FALSE(gpu_of_two({"H200 (GPU-1)", "H200 (GPU-2)"}));
  CHECK_FALSE(gpu_of_two({"", ""}));
  const auto shared = gpu_of_two({"H200 (GPU-1)", "H200 (GPU-2)", "H200 (GPU-1)"});
  REQUIRE(shared);
  CHECK(contains(*shared, "ranks 0 and 2 have the same GPU, H200 (GPU-1)"));
}

TEST_CASE("auto_chooses_the_cpu_without_a_usable_gpu_and_cuda_is_refused_with_the_reason") {
  CHECK(choose_device(DeviceKind::automatic, GpuFacts{}).device.is_cpu());
  CHECK(contains(refused_gpu(DeviceKind::cuda, GpuFacts{}), "no GPU was found"));

  auto without_cuda = facts_of({"T4", 7, 5});
  without_cuda.libtorch_has_cuda = without_cuda.libtorch_sees_gpu = false;
  CHECK(choose_device(DeviceKind::automatic, without_cuda).device.is_cpu());
  CHECK(contains(choose_device(DeviceKind::automatic, without_cuda).note, "built without CUDA"));
  CHECK(contains(refused_gpu(DeviceKind::cuda, without_cuda), "built without CUDA"));

  auto old_driver = facts_of({"T4", 7, 5});
  old_driver.driver_cuda = "12.4";
  old_driver.libtorch_sees_gpu = false;
  CHECK(
      contains(refused_gpu(DeviceKind::automatic, old_driver), "built for CUDA 13.0 and the driver serves CUDA 12.4"));
}

TEST_CASE("driver_and_libtorch_agree_on_whether_there_is_a_gpu") {
  const auto facts = holdfast::find_gpus();
  if (facts.libtorch_has_cuda) CHECK(facts.libtorch_sees_gpu == !facts.gpus.empty());
  if (facts.gpus.empty()) CHECK(choose_device(DeviceKind::automatic).device.is_cpu());
}

TEST_CASE("the_installed_gpu_is_reported_with_its_kernels", "[gpu]") {
  const auto facts = holdfast::find_gpus();
  REQUIRE_FALSE(facts.gpus.empty());
  CHECK(facts.libtorch_sees_gpu);
  CHECK(facts.gpus.front().major >= 7);
  CHECK(contains(facts.libtorch_architectures, "code=sm_"));
  const auto device = choose_device(DeviceKind::automatic).device;
  CHECK(device.is_cuda());
  const auto present = holdfast::capture_environment(device);
  INFO(present.dump(1));
  CHECK(present.at("device").at("name") == facts.gpus.front().name);
  CHECK(present.at("device").contains("cudnn"));
  CHECK(differences(present, holdfast::capture_environment(c10::kCPU)).front() == "device cuda → cpu");
}

TEST_CASE("the_environment_names_what_bit_exactness_needs") {
  const auto present = holdfast::capture_environment(c10::kCPU);
  INFO(present.dump(1));
  CHECK(present.at("libtorch").get<std::string>().rfind("2.", 0) == 0);
  CHECK(present.at("libtorch_git").get<std::string>().size() == 40);
  CHECK_FALSE(present.at("cpu_capability").get<std::string>().empty());
  CHECK(present.at("threads") == at::get_num_threads());
  CHECK(present.at("world_size") == 1);
  CHECK(present.at("device").at("kind") == "cpu");
  CHECK(differences(present, present).empty());
}

TEST_CASE("differences_of_the_environment_give_the_old_and_new_value") {
  const json saved = {{"threads", 2}, {"libtorch", "2.11.0"}, {"deterministic", {{"algorithms", true}}}, {"older", 1}};
  const json present = {
      {"threads", 4}, {"libtorch", "2.11.0"}, {"deterministic", {{"algorithms", false}}}, {"newer", 1}};
  CHECK(differences(saved, present) == std::vector<std::string>{"threads 2 → 4", "deterministic algorithms on → off"});
}

TEST_CASE("threads_and_flags_are_set_as_saved_unless_the_user_chose_threads") {
  auto& context = at::globalContext();
  const auto before = holdfast::capture_environment(c10::kCPU);
  auto saved = before;
  saved["threads"] = at::get_num_threads() + 1;
  saved["deterministic"]["algorithms"] = true;
  saved["deterministic"]["cudnn"] = true;
  saved["float32"]["cublas"] = "tf32";
  holdfast::restore_environment(saved, true);
  CHECK(at::get_num_threads() == before.at("threads"));
  holdfast::restore_environment(saved, false);
  CHECK(differences(saved, holdfast::capture_environment(c10::kCPU)).empty());
  CHECK(context.deterministicAlgorithms());
  saved["float32"]["cublas"] = "a precision of the future";
  holdfast::restore_environment(saved, false);
  CHECK(differences(saved, holdfast::capture_environment(c10::kCPU)).size() == 1);
  holdfast::restore_environment(before, false);
  CHECK(holdfast::capture_environment(c10::kCPU) == before);
}

TEST_CASE("deterministic_kernels_are_used_if_requested") {
  const auto before = holdfast::capture_environment(c10::kCPU);
  holdfast::make_deterministic();
  const auto now = holdfast::capture_environment(c10::kCPU).at("deterministic");
  for (const char* flag : {"algorithms", "cudnn", "mkldnn"}) CHECK(now.at(flag) == true);
  CHECK(now.at("warn_only") == false);
  CHECK(now.at("cudnn_benchmark") == false);
  CHECK(now.at("cublas_workspace") == ":4096:8");
  // An operation without a deterministic kernel throws instead of computing another result the next time.
  CHECK_THROWS(at::globalContext().alertNotDeterministic("an operation"));
  holdfast::restore_environment(before, true);
  ::unsetenv("CUBLAS_WORKSPACE_CONFIG");
}

TEST_CASE("seed_all_seeds_the_default_generator") {
  holdfast::seed_all(123);
  CHECK(at::detail::getDefaultCPUGenerator().current_seed() == 123);
}
