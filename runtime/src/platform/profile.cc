#include "holdfast/runtime/platform/profile.h"

#include <array>

namespace holdfast {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

constexpr std::uint64_t kGigabyte = 1'000'000'000;

std::string in(const std::string& folder, const std::string& name) {
  return folder + (folder.ends_with('/') ? "" : "/") + name;
}

Profile local(const Surroundings&) {
  return {.name = "local",
          .title = "this machine",
          .home = "runs",
          .home_reason = "the working directory is on a disk that stays"};
}

// 12 h with a CPU or GPU, 9 h with a TPU; /kaggle/working holds 20 GB and is kept by Save Version (Kaggle's
// documentation; Kaggle/kagglehub).
Profile kaggle(const Surroundings& around) {
  const bool tpu = around.variable("TPU_NAME") || around.variable("ISTPUVM");
  return {.name = "kaggle",
          .title = "Kaggle, interactive",
          .home = "/kaggle/working/holdfast",
          .home_reason = "/kaggle/working is kept when the notebook is saved as a version",
          .search = {"/kaggle/input"},
          .limit = hours(tpu ? 9 : 12),
          .quota = Quota{"/kaggle/working", 20 * kGigabyte},
          .loss = {"Kaggle keeps /kaggle/working of an interactive session only if the notebook is saved",
                   "save it as a version, or switch persistence of files on, before the session ends"},
          .disk = "/kaggle/working"};
}

// A run that fails or reaches the limit keeps nothing.
Profile kaggle_batch(const Surroundings& around) {
  Profile profile = kaggle(around);
  profile.name = "kaggle-batch";
  profile.title = "Kaggle, Save Version";
  profile.home_reason = "/kaggle/working becomes the output of this version of the notebook";
  profile.loss = {};
  profile.stopped_exit_code = kDone;
  return profile;
}

// At most 12 h, 24 h with Pro+ (Colab's FAQ); MyDrive is the folder that Drive's own pages show (drive.py).
Profile colab(const Surroundings& around) {
  Profile profile = {.name = "colab",
                     .title = "Colab",
                     .home = "/content/holdfast",
                     .home_reason = "Drive is not mounted",
                     .limit = hours(12),
                     .loss = {"Colab deletes this machine's disk when the session ends",
                              "mount Drive before the program starts: from google.colab import drive; "
                              "drive.mount('/content/drive')"},
                     .disk = "/content"};
  if (const Mount* drive = drive_mount(around.mounts)) {
    const std::string folder = in(drive->point, "MyDrive/holdfast");
    profile.home_reason = "the machine's own disk is fast; versions are copied to Drive, which outlives the machine";
    profile.mirrors = {folder};
    profile.quota = Quota{folder, 15 * kGigabyte};
    profile.loss.remedy = "name a folder in Drive with --holdfast.mirror, such as " + folder;
  }
  return profile;
}

// Drive cannot be mounted there; idle machines are stopped after 180 min (Google Cloud, Colab Enterprise).
Profile colab_enterprise(const Surroundings&) {
  return {.name = "colab-enterprise",
          .title = "Colab Enterprise",
          .home = "/content/holdfast",
          .home_reason = "Drive cannot be mounted in Colab Enterprise",
          .loss = {"the machine's disk is deleted with the runtime", "copy the runs to a bucket"},
          .disk = "/content"};
}

// Training jobs upload /opt/ml/checkpoints while they run, and get SIGTERM 120 s before SIGKILL (SageMaker's
// documentation).
Profile sagemaker(const Surroundings&) {
  return {.name = "sagemaker",
          .title = "SageMaker",
          .home = "/opt/ml/checkpoints",
          .home_reason = "SageMaker uploads /opt/ml/checkpoints if the job has a checkpoint configuration",
          .notice = seconds(120)};
}

Profile runpod(const Surroundings&) {
  return {.name = "runpod",
          .title = "RunPod",
          .home = "/workspace/holdfast",
          .home_reason = "/workspace is the pod's volume",
          .notice = seconds(5)};
}

Profile vast(const Surroundings&) {
  return {.name = "vast",
          .title = "Vast.ai",
          .home = "/workspace/holdfast",
          .home_reason = "/workspace is the instance's folder for data",
          .loss = {"the disk is deleted with the instance", "copy the runs elsewhere before you delete it"},
          .disk = "/workspace"};
}

// A call lasts 24 h at most; a Volume outlives it (Modal's documentation).
Profile modal(const Surroundings&) {
  return {.name = "modal",
          .title = "Modal",
          .home = "runs",
          .home_reason = "a Volume is mounted wherever the program asked for it",
          .limit = hours(24),
          .loss = {"the container's disk is deleted with it", "name a folder of a Volume with --holdfast.dir"},
          .disk = "/"};
}

Profile lightning(const Surroundings&) {
  return {.name = "lightning",
          .title = "Lightning Studio",
          .home = "/teamspace/studios/this_studio/holdfast",
          .home_reason = "the studio's folder is kept"};
}

Profile paperspace(const Surroundings&) {
  return {.name = "paperspace",
          .title = "Paperspace Gradient",
          .home = "/storage/holdfast",
          .home_reason = "/storage is kept",
          .limit = hours(6)};
}

// The batch system's end time is the limit (SLURM_JOB_END_TIME).
Profile slurm(const Surroundings& around) {
  Profile profile = {.name = "slurm", .title = "Slurm", .home = "runs", .home_reason = "the job's working directory"};
  if (const auto scratch = around.variable("SCRATCH"); scratch && scratch->starts_with('/')) {
    profile.home = in(*scratch, "holdfast");
    profile.home_reason = "SCRATCH is the site's folder for large files";
  } else if (const auto submit = around.variable("SLURM_SUBMIT_DIR"); submit && submit->starts_with('/')) {
    profile.home = in(*submit, "runs");
    profile.home_reason = "the folder from which the job was submitted (SLURM_SUBMIT_DIR)";
  }
  return profile;
}

// SIGTERM comes 30 s before SIGKILL, unless the pod asks for more (Kubernetes, terminationGracePeriodSeconds).
Profile kubernetes(const Surroundings&) {
  return {.name = "kubernetes",
          .title = "Kubernetes",
          .home = "runs",
          .home_reason = "a volume is mounted wherever the pod asked for it",
          .notice = seconds(30)};
}

// docker stop sends SIGKILL 10 s after SIGTERM.
Profile container(const Surroundings&) {
  return {.name = "container",
          .title = "a container",
          .home = "runs",
          .home_reason = "a volume is mounted wherever the container's user asked for it",
          .notice = seconds(10)};
}

// Notices: EC2 2 min, GCE 30 s, Azure 30 s (each cloud's documentation of spot machines).
Profile ec2(const Surroundings&) {
  return {.name = "ec2", .title = "EC2", .home = "runs", .home_reason = "the machine's disk", .notice = seconds(120)};
}
Profile gce(const Surroundings&) {
  return {.name = "gce",
          .title = "Google Compute Engine",
          .home = "runs",
          .home_reason = "the machine's disk",
          .notice = seconds(30)};
}
Profile azure(const Surroundings&) {
  return {
      .name = "azure", .title = "Azure", .home = "runs", .home_reason = "the machine's disk", .notice = seconds(30)};
}

struct Row {
  const char* name;
  Profile (*make)(const Surroundings&);
};
constexpr std::array kProfiles = {
    Row{"kaggle-batch", kaggle_batch},
    Row{"kaggle", kaggle},
    Row{"colab-enterprise", colab_enterprise},
    Row{"colab", colab},
    Row{"sagemaker", sagemaker},
    Row{"runpod", runpod},
    Row{"vast", vast},
    Row{"modal", modal},
    Row{"lightning", lightning},
    Row{"paperspace", paperspace},
    Row{"slurm", slurm},
    Row{"kubernetes", kubernetes},
    Row{"container", container},
    Row{"ec2", ec2},
    Row{"gce", gce},
    Row{"azure", azure},
};

}  // namespace

Profile profile_of(const std::string& place, const Surroundings& around) {
  for (const Row& row : kProfiles) {
    if (place == row.name) return row.make(around);
  }
  return local(around);
}

Loss loss_in(const std::string& folder, const Profile& profile, const Platform& platform,
             const std::vector<Mount>& mounts) {
  const Mount* const mount = mount_of(folder, mounts);
  if (!profile.loss.empty() && mount == mount_of(profile.disk, mounts)) return profile.loss;
  if (mount == nullptr) return {};
  if (mount->type == "tmpfs" || mount->type == "ramfs") {
    return {folder + " is in memory (" + mount->type + "), so its checkpoints are lost when the machine stops",
            "name a folder on a disk with --holdfast.dir"};
  }
  if (mount->type == "overlay" && !platform.container.name.empty()) {
    return {folder + " is in the container's own layer, which is deleted with the container",
            "mount a volume and name a folder in it with --holdfast.dir"};
  }
  return {};
}

}  // namespace holdfast
