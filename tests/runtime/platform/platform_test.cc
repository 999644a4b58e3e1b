#include "holdfast/runtime/platform/platform.h"

#include <algorithm>

#include "catch.h"
#include "holdfast/runtime/platform/profile.h"
#include "made_up_machine.h"

namespace holdfast {
namespace {

using test::machine;

std::string place(const Surroundings& around) { return detect(around).place.name; }

TEST_CASE("each_platform_is_detected_by_its_own_signs_and_the_reason_names_them") {
  const auto found = [](const Surroundings& around, const std::string& name, const std::string& reason) {
    const Finding finding = detect(around).place;
    CHECK(finding.name == name);
    CHECK(finding.reason.find(reason) != std::string::npos);
  };
  found(machine({{"KAGGLE_KERNEL_RUN_TYPE", "Batch"}}), "kaggle-batch", "KAGGLE_KERNEL_RUN_TYPE=Batch");
  found(machine({{"KAGGLE_KERNEL_RUN_TYPE", "Interactive"}}), "kaggle", "KAGGLE_KERNEL_RUN_TYPE=Interactive");
  found(machine({{"KAGGLE_URL_BASE", "https://x"}}, {{"/kaggle", ""}}), "kaggle", "KAGGLE_URL_BASE");
  found(machine({{"VERTEX_PRODUCT", "COLAB_ENTERPRISE"}, {"COLAB_RELEASE_TAG", "r"}}), "colab-enterprise",
        "VERTEX_PRODUCT");
  found(machine({{"COLAB_RELEASE_TAG", "release-colab_20261101"}}), "colab", "COLAB_RELEASE_TAG");
  found(machine({{"COLAB_GPU", ""}}), "colab", "COLAB_GPU");
  found(machine({}, {{"/var/colab/hostname", "m-s-1\n"}}), "colab", "/var/colab/hostname");
  found(machine({{"TRAINING_JOB_NAME", "job"}}, {{"/opt/ml", ""}}), "sagemaker", "/opt/ml");
  found(machine({{"RUNPOD_POD_ID", "p"}}, {{"/.dockerenv", ""}}), "runpod", "RUNPOD_POD_ID");
  found(machine({{"VAST_CONTAINERLABEL", "C.1"}}, {{"/.dockerenv", ""}}), "vast", "VAST_CONTAINERLABEL");
  found(machine({{"MODAL_TASK_ID", "ta-1"}}), "modal", "MODAL_TASK_ID");
  found(machine({{"LIGHTNING_CLOUD_SPACE_ID", "s"}}), "lightning", "LIGHTNING_CLOUD_SPACE_ID");
  found(machine({{"PAPERSPACE_NOTEBOOK_REPO_ID", "r"}}), "paperspace", "PAPERSPACE_NOTEBOOK_REPO_ID");
  found(machine({{"SLURM_JOB_ID", "41"}}), "slurm", "SLURM_JOB_ID=41");
  found(machine({{"KUBERNETES_SERVICE_HOST", "10.0.0.1"}}), "kubernetes", "KUBERNETES_SERVICE_HOST");
  found(machine({}, {{"/.dockerenv", ""}}), "container", "/.dockerenv");
  found(machine({{"container", "podman"}}), "container", "container=podman");
  found(machine({}, {{"/sys/class/dmi/id/sys_vendor", "Amazon EC2\n"}}), "ec2", "Amazon EC2");
  found(machine({}, {{"/sys/class/dmi/id/product_name", "Google Compute Engine\n"}}), "gce", "Google");
  found(machine({}, {{"/sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n"}}), "azure", "Azure");
  found(machine({}), "local", "nothing");
}

TEST_CASE("kaggle_is_not_taken_for_colab_although_its_image_has_colabs_variables") {
  CHECK(place(machine({{"COLAB_RELEASE_TAG", "r"}, {"COLAB_GPU", "1"}, {"KAGGLE_KERNEL_RUN_TYPE", "Batch"}},
                      {{"/var/colab/hostname", "h"}, {"/sys/class/dmi/id/product_name", "Google Compute Engine\n"}})) ==
        "kaggle-batch");
}

TEST_CASE("variables_of_a_platforms_command_on_a_users_own_machine_do_not_make_it_the_platform") {
  CHECK(place(machine({{"KAGGLE_URL_BASE", "https://www.kaggle.com"}})) == "local");
  CHECK(place(machine({{"SM_MODEL_DIR", "/tmp/model"}})) == "local");
  CHECK(place(machine({{"KAGGLE_KERNEL_RUN_TYPE", ""}})) == "local");
}

TEST_CASE("a_slurm_job_in_a_container_on_a_cloud_has_all_of_these_axes") {
  const Platform platform = detect(machine(
      {{"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "3"}, {"APPTAINER_CONTAINER", "/images/a.sif"}},
      {{"/sys/class/dmi/id/sys_vendor", "Amazon EC2\n"}}));
  CHECK(platform.place.name == "slurm");
  CHECK(platform.scheduler.name == "slurm");
  CHECK(platform.launcher.name == "srun");
  CHECK(platform.container.name == "apptainer");
  CHECK(platform.cloud.name == "ec2");
}

TEST_CASE("launchers_are_told_apart") {
  const auto launcher = [](std::map<std::string, std::string> environment) {
    return detect(machine(std::move(environment))).launcher.name;
  };
  CHECK(launcher({{"HOLDFAST_LAUNCH", "1"}, {"RANK", "0"}, {"WORLD_SIZE", "2"}}) == "holdfast launch");
  CHECK(launcher({{"TORCHELASTIC_RUN_ID", "x"}, {"RANK", "0"}}) == "torchrun");
  CHECK(launcher({{"RANK", "0"}, {"WORLD_SIZE", "2"}}) == "torchrun");
  CHECK(launcher({{"OMPI_COMM_WORLD_RANK", "1"}, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}}) == "mpirun");
  CHECK(launcher({{"PMI_RANK", "1"}}) == "mpiexec");
  CHECK(launcher({{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}}).empty());  // a batch script without srun
  CHECK(launcher({}).empty());
}

TEST_CASE("values_that_may_be_secrets_are_not_in_a_reason") {
  const Platform platform =
      detect(machine({{"KAGGLE_USER_SECRETS_TOKEN", "hush"}, {"RUNPOD_POD_ID", "hush"}}, {{"/kaggle", ""}}));
  CHECK(platform.place.name == "kaggle");
  CHECK(platform.place.reason.find("hush") == std::string::npos);
}

TEST_CASE("every_platform_has_a_profile_and_its_home_is_named_with_a_reason") {
  for (const std::string& name : platform_names()) {
    INFO(name);
    const Profile profile = profile_of(name, machine({}));
    CHECK(profile.name == name);
    CHECK_FALSE(profile.title.empty());
    CHECK_FALSE(profile.home.empty());
    CHECK_FALSE(profile.home_reason.empty());
  }
  CHECK(profile_of("no such platform", machine({})).name == "local");
}

TEST_CASE("colab_keeps_versions_in_drive_only_if_drive_is_really_mounted") {
  const Profile mounted = profile_of("colab", machine({}, {}, test::kDrive));
  CHECK(mounted.mirrors == std::vector<std::string>{"/content/drive/MyDrive/holdfast"});
  CHECK(mounted.home == "/content/holdfast");
  // A folder of this name on the machine's own disk is not Drive.
  const Profile folder = profile_of("colab", machine({}, {{"/content/drive/MyDrive", ""}}));
  CHECK(folder.mirrors.empty());
  CHECK(folder.loss.remedy.find("drive.mount") != std::string::npos);
}

TEST_CASE("folder_that_goes_away_with_the_machine_is_reported_with_the_remedy") {
  const auto loss = [](const std::string& folder, const Surroundings& around) {
    const Platform platform = detect(around);
    return loss_in(folder, profile_of(platform.place.name, around), platform, around.mounts);
  };
  const std::string overlay = "1 0 0:1 / / rw - overlay overlay rw\n";
  const std::string volume = overlay + "2 1 0:2 / /data rw - ext4 /dev/b rw\n3 1 0:3 / /dev/shm rw - tmpfs none rw\n";
  CHECK(loss("/app/runs", machine({}, {{"/.dockerenv", ""}}, volume)).remedy.find("volume") != std::string::npos);
  CHECK(loss("/data/runs", machine({}, {{"/.dockerenv", ""}}, volume)).empty());
  CHECK(loss("/app/runs", machine({}, {}, overlay)).empty());  // a machine whose root is an overlay
  CHECK(loss("/dev/shm/runs", machine({}, {}, volume)).what.find("memory") != std::string::npos);
  const std::map<std::string, std::string> colab = {{"COLAB_GPU", "1"}};
  CHECK(loss("/content/holdfast", machine(colab)).remedy.find("drive.mount") != std::string::npos);
  CHECK(loss("/content/drive/MyDrive/holdfast", machine(colab, {}, test::kDrive)).empty());
  CHECK(loss("/content/mine", machine(colab, {}, test::kDrive)).remedy.find("/content/drive/MyDrive/holdfast") !=
        std::string::npos);
  CHECK(loss("/kaggle/working/holdfast", machine({{"KAGGLE_KERNEL_RUN_TYPE", "Batch"}})).empty());
}

TEST_CASE("kaggle_has_twenty_gigabytes_and_twelve_hours") {
  const Profile profile = profile_of("kaggle-batch", machine({}));
  CHECK(profile.home == "/kaggle/working/holdfast");
  REQUIRE(profile.quota);
  CHECK(profile.quota->folder == "/kaggle/working");
  CHECK(profile.quota->bytes == 20'000'000'000);
  CHECK(profile.limit == std::chrono::hours(12));
  CHECK(profile.stopped_exit_code == 0);  // a failed batch run keeps nothing
  CHECK(profile_of("kaggle", machine({})).stopped_exit_code == 75);
  CHECK(profile_of("kaggle", machine({{"TPU_NAME", "local"}})).limit == std::chrono::hours(9));
}

TEST_CASE("slurm_keeps_runs_in_scratch_or_else_where_the_job_was_submitted") {
  CHECK(profile_of("slurm", machine({{"SCRATCH", "/scratch/u/"}, {"SLURM_SUBMIT_DIR", "/home/u"}})).home ==
        "/scratch/u/holdfast");
  CHECK(profile_of("slurm", machine({{"SLURM_SUBMIT_DIR", "/home/u/project"}})).home == "/home/u/project/runs");
  CHECK(profile_of("slurm", machine({{"SCRATCH", "yes"}})).home == "runs");
}

}  // namespace
}  // namespace holdfast
