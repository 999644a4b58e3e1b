#include "holdfast/runtime/platform/platform.h"

#include <array>
#include <initializer_list>
#include <optional>

#include "holdfast/runtime/platform/launcher.h"

namespace holdfast {
namespace {

using Reason = std::optional<std::string>;

// Only values that say something are shown, because others may be secrets.
Reason is_set(const Surroundings& around, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (around.variable(name)) return std::string(name) + " is set";
  }
  return std::nullopt;
}

Reason with_value(const Surroundings& around, const char* name) {
  const auto value = around.variable(name);
  if (!value || value->empty()) return std::nullopt;
  return std::string(name) + "=" + *value;
}

Reason there_is(const Surroundings& around, const char* path) {
  if (!around.exists(path)) return std::nullopt;
  return std::string(path) + " exists";
}

// What the firmware says of the machine, without the line feed.
std::string dmi(const Surroundings& around, const char* name) {
  std::string text = (around.read ? around.read(std::string("/sys/class/dmi/id/") + name) : std::nullopt).value_or("");
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

// The image of Kaggle is built from Colab's, so Colab's variables are set there too: Kaggle is tried first
// (Kaggle/docker-python, Dockerfile.tmpl; Kaggle/kagglehub, env.py).
Reason is_kaggle_batch(const Surroundings& around) {
  if (around.variable("KAGGLE_KERNEL_RUN_TYPE") != "Batch") return std::nullopt;
  return "KAGGLE_KERNEL_RUN_TYPE=Batch";
}
Reason is_kaggle(const Surroundings& around) {
  if (auto reason = with_value(around, "KAGGLE_KERNEL_RUN_TYPE")) return reason;
  // A user's own machine may have variables of Kaggle's command.
  const auto token = is_set(around, {"KAGGLE_DATA_PROXY_TOKEN", "KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_URL_BASE"});
  if (!token || !around.exists("/kaggle")) return std::nullopt;
  return *token + " and /kaggle exists";
}
// googlecolab/colabtools, google/colab/drive.py.
Reason is_colab_enterprise(const Surroundings& around) {
  if (around.variable("VERTEX_PRODUCT") != "COLAB_ENTERPRISE") return std::nullopt;
  return "VERTEX_PRODUCT=COLAB_ENTERPRISE";
}
// COLAB_GPU may be 0 or empty.
Reason is_colab(const Surroundings& around) {
  if (auto reason = is_set(around, {"COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION", "COLAB_GPU"})) return reason;
  return there_is(around, "/var/colab/hostname");
}
// aws/sagemaker-training-toolkit.
Reason is_sagemaker(const Surroundings& around) {
  if (!around.exists("/opt/ml")) return std::nullopt;
  const auto set = is_set(around, {"TRAINING_JOB_NAME", "SM_CURRENT_HOST", "SM_MODEL_DIR", "SM_TRAINING_ENV"});
  return set ? Reason(*set + " and /opt/ml exists") : std::nullopt;
}
Reason is_runpod(const Surroundings& around) { return is_set(around, {"RUNPOD_POD_ID"}); }
Reason is_vast(const Surroundings& around) { return is_set(around, {"VAST_CONTAINERLABEL"}); }
Reason is_modal(const Surroundings& around) { return is_set(around, {"MODAL_TASK_ID"}); }
Reason is_lightning(const Surroundings& around) { return is_set(around, {"LIGHTNING_CLOUD_SPACE_ID"}); }
Reason is_paperspace(const Surroundings& around) { return is_set(around, {"PAPERSPACE_NOTEBOOK_REPO_ID"}); }
Reason is_slurm(const Surroundings& around) { return with_value(around, "SLURM_JOB_ID"); }
Reason is_kubernetes(const Surroundings& around) { return is_set(around, {"KUBERNETES_SERVICE_HOST"}); }
Reason is_pbs(const Surroundings& around) { return with_value(around, "PBS_JOBID"); }
Reason is_lsf(const Surroundings& around) { return with_value(around, "LSB_JOBID"); }
Reason is_htcondor(const Surroundings& around) { return is_set(around, {"_CONDOR_JOB_AD"}); }

Reason is_docker(const Surroundings& around) { return there_is(around, "/.dockerenv"); }
Reason is_podman(const Surroundings& around) { return there_is(around, "/run/.containerenv"); }
Reason is_apptainer(const Surroundings& around) {
  return is_set(around, {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "SINGULARITY_NAME"});
}
// systemd.exec(5): the container's manager sets it.
Reason is_other_container(const Surroundings& around) { return with_value(around, "container"); }
Reason is_container(const Surroundings& around);

// DMI texts of the clouds' machines. They come last, because Colab's and Kaggle's machines are Google's.
Reason is_ec2(const Surroundings& around) {
  if (dmi(around, "sys_vendor") != "Amazon EC2") return std::nullopt;
  return "the firmware's vendor is Amazon EC2";
}
Reason is_gce(const Surroundings& around) {
  if (dmi(around, "product_name") != "Google Compute Engine") return std::nullopt;
  return "the firmware's product is Google Compute Engine";
}
// Azure's own agent compares this tag (Azure/WALinuxAgent).
Reason is_azure(const Surroundings& around) {
  if (dmi(around, "chassis_asset_tag") != "7783-7084-3265-9085-8269-3286-77") return std::nullopt;
  return "the firmware's asset tag is Azure's";
}
Reason is_anywhere(const Surroundings&) { return "nothing points to another platform"; }

Reason is_launch(const Surroundings& around) { return is_set(around, {detail::kLaunchVariable}); }
Reason is_torchrun(const Surroundings& around) {
  if (auto reason = is_set(around, {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"})) return reason;
  if (!around.variable("RANK") || !around.variable("WORLD_SIZE")) return std::nullopt;
  return "RANK and WORLD_SIZE are set";
}
Reason is_srun(const Surroundings& around) {
  return around.variable("SLURM_STEP_ID") ? is_set(around, {"SLURM_PROCID"}) : std::nullopt;
}
Reason is_mpirun(const Surroundings& around) { return is_set(around, {"OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"}); }
Reason is_jsrun(const Surroundings& around) { return is_set(around, {"JSM_NAMESPACE_RANK"}); }
Reason is_mpiexec(const Surroundings& around) { return is_set(around, {"PMI_RANK"}); }

struct Rule {
  const char* name;
  Reason (*applies)(const Surroundings&);
};

constexpr std::array kPlaces = {
    Rule{"kaggle-batch", is_kaggle_batch},
    Rule{"kaggle", is_kaggle},
    Rule{"colab-enterprise", is_colab_enterprise},
    Rule{"colab", is_colab},
    Rule{"sagemaker", is_sagemaker},
    Rule{"runpod", is_runpod},
    Rule{"vast", is_vast},
    Rule{"modal", is_modal},
    Rule{"lightning", is_lightning},
    Rule{"paperspace", is_paperspace},
    Rule{"slurm", is_slurm},
    Rule{"kubernetes", is_kubernetes},
    Rule{"container", is_container},
    Rule{"ec2", is_ec2},
    Rule{"gce", is_gce},
    Rule{"azure", is_azure},
    Rule{"local", is_anywhere},
};
constexpr std::array kSchedulers = {Rule{"slurm", is_slurm}, Rule{"kubernetes", is_kubernetes}, Rule{"pbs", is_pbs},
                                    Rule{"lsf", is_lsf}, Rule{"htcondor", is_htcondor}};
// A process may have the variables of several: those of the launcher that started it last come first.
constexpr std::array kLaunchers = {Rule{"holdfast launch", is_launch},
                                   Rule{"torchrun", is_torchrun},
                                   Rule{"mpirun", is_mpirun},
                                   Rule{"jsrun", is_jsrun},
                                   Rule{"srun", is_srun},
                                   Rule{"mpiexec", is_mpiexec}};
constexpr std::array kContainers = {Rule{"kubernetes", is_kubernetes}, Rule{"docker", is_docker},
                                    Rule{"podman", is_podman}, Rule{"apptainer", is_apptainer},
                                    Rule{"container", is_other_container}};
constexpr std::array kClouds = {Rule{"ec2", is_ec2}, Rule{"gce", is_gce}, Rule{"azure", is_azure}};

template <class Rules>
Finding first_of(const Rules& rules, const Surroundings& around) {
  for (const Rule& rule : rules) {
    if (auto reason = rule.applies(around)) return {rule.name, *std::move(reason)};
  }
  return {};
}

Reason is_container(const Surroundings& around) {
  const Finding found = first_of(kContainers, around);
  return found.name.empty() ? std::nullopt : Reason(found.reason);
}

}  // namespace

Platform detect(const Surroundings& around) {
  return {.place = first_of(kPlaces, around),
          .scheduler = first_of(kSchedulers, around),
          .launcher = first_of(kLaunchers, around),
          .container = first_of(kContainers, around),
          .cloud = first_of(kClouds, around)};
}

std::vector<std::string> platform_names() {
  std::vector<std::string> names;
  for (const Rule& rule : kPlaces) names.emplace_back(rule.name);
  return names;
}

// drive.py looks for the same type.
const Mount* drive_mount(const std::vector<Mount>& mounts) {
  const Mount* found = nullptr;
  for (const Mount& mount : mounts) {
    if (mount.type == "fuse.drive") found = &mount;
  }
  return found;
}

}  // namespace holdfast
