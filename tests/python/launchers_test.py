"""Ranks started by real launchers: holdfast launch, torchrun and the MPI launchers of Open MPI and MPICH, if they are
installed. (slurm_test.py: by srun.)"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

bin_folder = os.path.abspath(sys.argv[1])
program = os.path.join(bin_folder, "ranks")
torchrun = os.path.join(os.path.dirname(sys.executable), "torchrun")
# Variables of a launcher that runs this test must not reach the ranks that it starts.
environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "SLURM_", "RANK", "WORLD", "MASTER_"))}
environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

launchers = {
    "holdfast launch": [os.path.join(bin_folder, "holdfast"), "launch", "--nproc", "3", "--", program],
    "torchrun": [torchrun, "--standalone", "--nproc-per-node", "3", "--no-python", program],
    "mpirun": [shutil.which("mpirun.openmpi") or "mpirun", "--oversubscribe", "-n", "3", program],
    "mpiexec": ["mpiexec.hydra", "-n", "3", program],
}
failed = []


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


for name, command in launchers.items():
    if not shutil.which(command[0]):
        print(f"{name}: not installed here, skipped")
        continue
    fine = run(command)
    lines = re.findall(r"rank (\d) of 3, local (\d), by (.*): sum 6", fine.stdout)
    if fine.returncode != 0 or sorted(lines) != [(str(r), str(r), name) for r in range(3)]:
        failed.append(f"{name}: {fine.returncode}\n{fine.stdout}\n{fine.stderr}")
    broken = run(command + ["fail", "1"])
    said = broken.stdout + broken.stderr
    # torchrun ends the others before they have printed anything; all other launchers let them report.
    expected = "this rank was told to fail" if name == "torchrun" else "rank 1 threw: this rank was told to fail"
    if broken.returncode == 0 or expected not in said:
        failed.append(f"{name}, rank 1 fails: {broken.returncode}\n{said}")
    print(f"{name}: 3 ranks agreed; when one failed, all reported why")
# Two jobs at once on one host: MPICH's launcher gives both the same variables, so they would use the same port.
if shutil.which("mpiexec.hydra"):
    jobs = [
        subprocess.Popen(["mpiexec.hydra", "-n", "2", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, env=environment)
        for _ in range(2)
    ]
    for job in jobs:
        said, _ = job.communicate(timeout=120)
        if job.returncode != 0 or said.count("of 2, local") != 2:
            failed.append(f"two jobs of mpiexec at once: {job.returncode}\n{said}")
# Every rank of a plain loop that does not average gradients reports it.
with tempfile.TemporaryDirectory() as folder:
    plain = os.path.join(bin_folder, "plain_loop")
    session = run([os.path.join(bin_folder, "holdfast"), "launch", "--nproc", "2", "--", plain, "--holdfast.dir", folder])
if session.returncode != 1 or session.stderr.count("gradients are not averaged; call session.average_gradients(net)") < 2:
    failed.append(f"a plain loop on two ranks: {session.returncode}\n{session.stderr}")
print("\n".join(failed))
sys.exit(1 if failed else 0)
