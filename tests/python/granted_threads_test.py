# A program in a control group that grants one processor's time computes with one thread, although the machine has more
# processors.
import os
import re
import subprocess
import sys
import tempfile

programs = sys.argv[1]


def make_group():
    """A control group with the time of one processor, and the file that takes a process into it."""
    name = f"holdfast-test-{os.getpid()}"
    for root, quota in (("/sys/fs/cgroup/cpu", ("cpu.cfs_quota_us", "100000")), ("/sys/fs/cgroup", ("cpu.max", "100000 100000"))):
        group = os.path.join(root, name)
        try:
            os.mkdir(group)
            with open(os.path.join(group, quota[0]), "w") as file:
                file.write(quota[1])
            return group
        except OSError as error:
            reason = error
            if os.path.isdir(group):
                os.rmdir(group)
    print(f"control groups cannot be made here: {reason}")
    sys.exit(77)


def threads_in(group, folder, *command):
    enter = f'echo $$ >{group}/cgroup.procs && exec "$@"'
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(["sh", "-c", enter, "sh", *command, "--holdfast.dir", folder, "--epochs", "1"],
                           env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return [int(number) for number in re.findall(r"cpu, (\d+) threads", ended.stderr)]


if os.cpu_count() < 2:
    print("this machine has one processor")
    sys.exit(77)
group = make_group()
try:
    with tempfile.TemporaryDirectory() as folder:
        phases = os.path.join(programs, "phases")
        assert threads_in(group, os.path.join(folder, "one"), phases) == [1]
finally:
    os.rmdir(group)
print("granted: 1 processor, threads=1")
