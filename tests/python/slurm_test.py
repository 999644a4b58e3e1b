"""Ranks on two hosts, which are network namespaces here, started by Slurm: Debian's packages with a configuration of
this test. Training that Slurm asks to stop (SIGTERM) ends with 75, and so does srun; the same command resumes."""
# run alone

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import hosts

for program, package in {"slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "munged": "munge"}.items():
    if not shutil.which(program):
        hosts.skip(f"the program {program} (package {package}) is not installed")
if os.geteuid() != 0:
    hosts.skip("Slurm's daemons need root")
hosts.enter()

from chain import RECORD, Chain  # noqa: E402

programs = os.path.abspath(sys.argv[1])
nodes = [hosts.Host("node1", "10.78.0.1"), hosts.Host("node2", "10.78.0.2")]
hosts.connect(*nodes)
folder = tempfile.TemporaryDirectory()
place = folder.name
os.chmod(place, 0o755)  # munged requires it
hosts.name(place, *nodes)
environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": place, "SLURM_CONF": f"{place}/slurm.conf"}
steps_an_epoch, epochs = 4, 20  # those of chain with four ranks
daemons = []


def check(fine, what, *texts):
    if fine:
        return
    print("FAILED:", what, *texts, sep="\n")
    for name in sorted(os.listdir(place)):
        if name.endswith(".log"):
            with open(f"{place}/{name}", encoding="utf-8") as log:
                print(f"---- {name}", *log.read().splitlines()[-15:], sep="\n")
    sys.exit(1)


def start_daemon(host, *words):
    daemons.append(subprocess.Popen([*host.words(report_left=False), *words], env=environment, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def stop_daemons():
    """Call before their folder is removed. (If this test is killed, its namespaces end them.)"""
    for daemon in daemons:
        daemon.kill()
        daemon.wait()


def start_slurm():
    with open(f"{place}/munge.key", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as key:
        key.write(os.urandom(1024))
    with open(f"{place}/slurm.conf", "w", encoding="utf-8") as conf:
        conf.write(f"""ClusterName=test
SlurmctldHost={nodes[0].name}
SlurmUser=root
AuthInfo=socket={place}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
KillWait=20
StateSaveLocation={place}
SlurmdSpoolDir={place}/%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/%n.log
SlurmdParameters=config_overrides
NodeName={','.join(node.name for node in nodes)} CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
""")
    start_daemon(nodes[0], "munged", "--foreground", "--force", f"--key-file={place}/munge.key",
                 f"--socket={place}/munge.socket", f"--pid-file={place}/munged.pid", f"--seed-file={place}/munge.seed")
    start_daemon(nodes[0], "slurmctld", "-D")
    for node in nodes:
        start_daemon(node, "slurmd", "-D", "-N", node.name)
    begun = time.monotonic()
    while slurm("sinfo", "-h", "-t", "idle", "-o", "%D").strip() != str(len(nodes)):
        check(time.monotonic() - begun < 30, "Slurm does not start", slurm("sinfo"))
        time.sleep(0.1)
    print(f"Slurm is up after {time.monotonic() - begun:.1f} s: {slurm('sinfo', '--version').strip()}")


def on_first_node(*words):
    return [*nodes[0].words(report_left=False), *words]


def slurm(*words):
    done = subprocess.run(on_first_node(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def srun(*words):
    return subprocess.run(on_first_node("srun", *words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120)


def check_ranks():
    for tasks in (4, 3):  # on the second node the same number, or one less
        done = srun("-N", "2", "-n", str(tasks), f"{programs}/ranks")
        total = tasks * (tasks + 1) // 2
        lines = sorted(re.findall(rf"rank (\d) of {tasks}, local (\d), by srun: sum {total}$", done.stdout, re.M))
        check(done.returncode == 0 and lines == [(str(rank), str(rank % 2)) for rank in range(tasks)], f"srun -n {tasks}",
              done.stdout)
    begun = time.monotonic()
    done = srun("-N", "2", "-n", "4", f"{programs}/ranks", "fail", "1")
    took = time.monotonic() - begun
    told = len(re.findall("rank 1 threw: this rank was told to fail", done.stdout))
    check(done.returncode == 1 and told >= 3, f"srun, rank 1 fails: {done.returncode}, told {told} times", done.stdout)
    done = srun("-N", "2", "-n", "4", f"{programs}/ranks", "last", "75")
    check(done.returncode == 75, f"srun of a rank that ends with 75 ends with {done.returncode}", done.stdout)
    print(f"srun: 4 and 3 ranks on two nodes agreed; when one failed, all reported why within {took:.1f} s; it passes 75 on")


def records(trace):
    """All records of all starts so far; checks that records of the same step and rank are equal."""
    found = {}
    for rank in range(4):
        if os.path.exists(f"{trace}.{rank}"):
            with open(f"{trace}.{rank}", "rb") as file:
                content = file.read()
            for step, its_rank, *computed in RECORD.iter_unpack(content[:len(content) // RECORD.size * RECORD.size]):
                check(found.setdefault((step, its_rank), computed) == computed, f"step {step} of rank {its_rank} changed")
    return found


def check_training():
    alone = Chain(on_first_node(f"{programs}/holdfast", "launch", "--nproc", "4", "--"), programs, place, "alone", epochs * 8,
                  "never", env=environment)
    check(alone.wait() == 0 and len(alone.records) == epochs * steps_an_epoch * 4, "the undisturbed run", alone.text)
    trace = f"{place}/trace"
    # srun passes no descriptors, so each rank opens a file for its records.
    told = ["sh", "-c", 'exec "$@" 9>>"$0.$SLURM_PROCID"', trace]
    program = [f"{programs}/chain", place, "slurm", "AdamW", "0", str(epochs * 8), "1", "", "9", "fp32", "cpu", "-1"]
    stops = {"scancel --signal=TERM": ["scancel", "--signal=TERM"], "scancel": ["scancel"]}
    for what, words in stops.items():
        before = len(records(trace))
        job = subprocess.Popen(on_first_node("srun", "-N", "2", "-n", "4", *told, *program), env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        begun = time.monotonic()
        while len(records(trace)) < before + 80 and job.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.01)
        number = slurm("squeue", "-h", "-o", "%A").strip()
        asked = time.monotonic()
        answer = slurm(*words, number)
        text = job.communicate(timeout=60)[0]
        took = time.monotonic() - asked
        print(f"{what}: srun ended with {job.returncode} after {took:.1f} s", flush=True)
        check(job.returncode == 75 and "SIGTERM" in text, f"{what} {number}: {answer}srun ended with {job.returncode}", text)
        check(before == 0 or "resumed version" in text, f"before {what} it did not resume", text)
    done = srun("-N", "2", "-n", "4", *told, *program)
    check(done.returncode == 0 and "resumed version" in done.stdout, f"the last start: {done.returncode}", done.stdout)
    differing = sum(alone.records.get(at) != record for at, record in records(trace).items())
    check(records(trace) == alone.records, f"{differing} records differ from an undisturbed run's on one host")
    diff = subprocess.run([f"{programs}/holdfast", "diff", f"{place}/alone", f"{place}/slurm"], capture_output=True, text=True)
    check(diff.returncode == 0, diff.stdout + diff.stderr)
    print(f"training by srun: stops={len(stops)} records={len(alone.records)} differing=0")


try:
    start_slurm()
    check_ranks()
    check_training()
finally:
    stop_daemons()
    folder.cleanup()
