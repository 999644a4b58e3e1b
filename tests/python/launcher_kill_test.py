"""Training resumes bit for bit wherever SIGKILL hits it: one rank, all ranks, or holdfast launch itself.

`launcher_kill_test.py PROGRAMS [KILLS [SEED]]` kills KILLS times at random moments, start-up included, and starts the
same command again each time. Then every loss of every step and rank must equal that of an uninterrupted run. After each
kill no process that was started may stay behind.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from chain import Chain

programs = os.path.abspath(sys.argv[1])
kills = int(sys.argv[2]) if len(sys.argv) > 2 else 21
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
ranks = 2
environment = {**os.environ, "OMP_NUM_THREADS": "1"}
launch = [f"{programs}/holdfast", "launch", "--nproc", str(ranks), "--"]
steps_between = 10  # more than the average number, so that the run does not end before the last kill


def processes_of(folder):
    """Launcher, guard and ranks have the folder in their command lines; a dead process has no command line."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as words:
                if folder.encode() in words.read():
                    found.append(int(entry))
        except OSError:
            pass  # it ended during the search
    return found


def ranks_of(launcher):
    """The processes that run the program now; during start-up there may be fewer than ranks."""
    found = []
    try:
        with open(f"/proc/{launcher}/task/{launcher}/children", encoding="utf-8") as children:
            for pid in children.read().split():
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "chain":
                    found.append(int(pid))
    except OSError:
        pass
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def gone_after(folder, seconds):
    begin = time.monotonic()
    while processes_of(folder):
        if time.monotonic() - begin > seconds:
            return None
        time.sleep(0.005)
    return time.monotonic() - begin


def check(fine, what, chain):
    if not fine:
        print(f"{what}\n{chain.text}")
        for pid in processes_of(folder):
            kill(pid)
        sys.exit(1)


with tempfile.TemporaryDirectory() as folder:
    steps = (kills * steps_between + 7) // 8 * 8  # whole epochs of the program

    def start(run, every):
        return Chain(launch, programs, folder, run, steps, every, env=environment)

    whole = start("undisturbed", "never")
    check(whole.wait() == 0, "the undisturbed run failed", whole)
    check(len(whole.records) == steps * ranks, "records are missing", whole)

    chance = random.Random(seed)
    counts = dict.fromkeys(("one rank", "all ranks", "the launcher"), 0)
    slowest = dict.fromkeys(counts, 0.0)
    early = 0  # kills before the first step
    seen = set()
    turn = 0
    while True:
        chain = start("killed", "1")
        whom = list(counts)[turn % 3]
        turn += 1
        hit = []
        if sum(counts.values()) < kills:
            if turn % 4 == 0:
                time.sleep(chance.uniform(0, 0.5))  # at any point of the start-up
            else:
                chain.wait_for_records(chance.randint(1, 16 * ranks))
                time.sleep(chance.uniform(0, 0.01))
            while not (there := ranks_of(chain.process.pid)) and whom != "the launcher" and chain.process.poll() is None:
                time.sleep(0.001)
            victims = {"one rank": there[-1:] if chance.random() < 0.5 else there[:1], "all ranks": there,
                       "the launcher": [chain.process.pid]}[whom]
            hit = [pid for pid in victims if kill(pid)]
            if hit:
                killed_at = time.monotonic()
                early += not chain.records
                counts[whom] += 1
                code = chain.process.wait(60)
                took = time.monotonic() - killed_at
                # launch itself waits for the remaining processes; without it, the kernel and its guard end them.
                expected = -signal.SIGKILL if whom == "the launcher" else 128 + signal.SIGKILL
                check(code == expected, f"{whom} killed: exit code {code} and not {expected}", chain)
                left = gone_after(folder, 5.0 if whom == "the launcher" else 0)
                check(left is not None, f"{whom} killed: these processes were left behind: {processes_of(folder)}", chain)
                chain.wait()
                check((steps, 0) not in chain.records, f"{whom} killed: the others continued to the end", chain)
                # Ranks that still wait for others at start-up end when launch asks them to, after 5 s.
                check(took < 15, f"{whom} killed: all processes ended only after {took:.1f} s", chain)
                slowest[whom] = max(slowest[whom], took + left)
        code = chain.wait()
        check(not chain.torn, "a record is torn", chain)
        for at, record in chain.records.items():
            check(whole.records.get(at) == record, f"step {at[0]} of rank {at[1]} differs from the undisturbed run's", chain)
        seen |= chain.records.keys()
        if code == 0 and not chain.records:
            break  # nothing was left to do
        check(code == 0 or hit, f"exit code {code} although no process was killed", chain)

    check(seen == whole.records.keys(), f"{len(whole.records) - len(seen)} records are missing", chain)
    diff = subprocess.run([f"{programs}/holdfast", "diff", f"{folder}/undisturbed", f"{folder}/killed"],
                          capture_output=True, text=True)
    check(diff.returncode == 0, diff.stdout + diff.stderr, chain)
    for whom, count in counts.items():
        print(f"killed {whom}: times={count}, all processes ended within {slowest[whom]:.2f} s")
    print(f"before the first step: kills={early}; records={len(seen)} seed={seed} differing=0")
    check(sum(counts.values()) == kills, "the run ended before the last kill: too few steps", chain)
