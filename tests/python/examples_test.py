"""The examples end with the same results whether or not they were killed in between, alone and on several ranks.

Numbers of ranks after the folder of programs are used instead of 1 and 2.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

programs = sys.argv[1]
counts = [int(count) for count in sys.argv[2:]] or [1, 2]
holdfast = os.path.join(programs, "holdfast")
environment = {**os.environ, "OMP_NUM_THREADS": "1"}

# Program, arguments, the step of a saved version after which it is killed, and by which signal if it runs alone.
trainings = [
    ("char_gpt", "--layers 2 --width 32 --heads 2 --context 32 --batch-size 12 --windows 500 --epochs 3 --warmup 20 "
                 "--accumulate 2 --write 40 --holdfast.every 15", 30, signal.SIGKILL),
    ("gan", "--steps 600 --batch-size 64 --width 32 --holdfast.every 100", 100, signal.SIGKILL),
    ("custom_stage", "--epochs 25 --holdfast.every 100", 100, signal.SIGTERM),
]


def command(program, count, arguments=()):
    launch = [holdfast, "launch", "--nproc", str(count)] if count > 1 else []
    return [*launch, os.path.join(programs, program), *arguments]


def run(arguments, expected=0):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != expected:
        sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def newest_step(run_folder):
    done = subprocess.run([holdfast, "ls", run_folder, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        return max(version["step"] for version in json.loads(done.stdout)["versions"])
    except (ValueError, KeyError):
        return 0  # there is no version yet


def kill_in_the_middle(arguments, run_folder, step, count, how):
    """Kills the program if it runs alone, else its last rank by SIGKILL. Returns the exit code, or minus the signal."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while newest_step(run_folder) < step:
        if process.poll() is not None:
            sys.exit(f"{' '.join(arguments)} ended by itself, with {process.returncode}, before it could be killed")
        time.sleep(0.02)
    if count == 1:
        process.send_signal(how)
    else:
        ranks = open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="utf-8").read().split()
        os.kill(int(ranks[-1]), signal.SIGKILL)
    return process.wait()


def train(program, options, step, how, count, folder):
    def arguments(name):
        return command(program, count, [*options.split(), "--holdfast.dir", folder, "--holdfast.run", name])

    calm, killed = f"{program}-{count}-calm", f"{program}-{count}-killed"
    expected = run(arguments(calm)).stdout
    code = kill_in_the_middle(arguments(killed), os.path.join(folder, killed), step, count, how)
    resumed = run(arguments(killed))
    problems = []
    if code != (137 if count > 1 else 75 if how == signal.SIGTERM else -how):
        problems.append(f"the killed one ended with {code}")
    if "resumed version" not in resumed.stderr:
        problems.append(f"it did not resume:\n{resumed.stderr}")
    if resumed.stdout.splitlines()[-3:] != expected.splitlines()[-3:]:
        problems.append(f"the uninterrupted run prints\n{expected}and the killed one\n{resumed.stdout}")
    compared = subprocess.run([holdfast, "diff", *(os.path.join(folder, name) for name in (calm, killed)), "--json"],
                              stdout=subprocess.PIPE, text=True)
    difference = json.loads(compared.stdout)
    if not difference["equal"] or not difference["equal_tensors"]:
        problems.append(f"the last versions differ: {compared.stdout[:2000]}")
    return problems


failed = False
with tempfile.TemporaryDirectory() as folder:
    for count in counts:
        for program, options, step, how in trainings:
            begun = time.monotonic()
            problems = train(program, options, step, how, count, folder)
            failed |= bool(problems)
            print(f"{program} on {count} ranks, {time.monotonic() - begun:.1f} s:", *problems or ["alike"], flush=True)
    # Impossible requests are refused at the start: a prompt with bytes that the text does not have, a folder as the
    # file of lines, numbers that would be mistaken for others.
    for option in ("--layers", "--warmup", "--workers"):
        for number in ("-1", "99999999999999999999"):
            run(command("char_gpt", 1, [option, number, "--holdfast.dir", folder]), expected=105)
    run(command("char_gpt", 1, ["--prompt", "\u20ac", "--holdfast.dir", folder]), expected=105)
    run(command("batch_inference", 1, ["--lines", folder]), expected=1)
    lines = {count: run(command("batch_inference", count)).stdout for count in {1, *counts}}
    plain = {count: [line.removeprefix("[0] ") for line in text.splitlines()] for count, text in lines.items()}
    alike = len(plain[1]) == 9 and all(one == plain[1] for one in plain.values())
    print(f"batch_inference on {sorted(plain)} ranks:", "alike" if alike else plain)
sys.exit(1 if failed or not alike else 0)
