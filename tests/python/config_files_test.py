"""A program accepts configs/local.json unchanged, and reports errors in a user's configuration file."""

import json
import os
import subprocess
import sys
import tempfile

programs = os.path.abspath(sys.argv[1])
configs = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "configs"))
plain_loop, holdfast = (os.path.join(programs, name) for name in ("plain_loop", "holdfast"))
environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
problems = []


def run(arguments, folder, **variables):
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, timeout=120,
                          env={**environment, "OMP_NUM_THREADS": "1", **variables})


def expect(what, right, seen):
    print(what, "" if right else f"NOT SO: {seen}", flush=True)
    if not right:
        problems.append(what)


with tempfile.TemporaryDirectory() as folder:
    # The interval comes from the environment, the number of kept versions from the file, the run's name from the
    # program.
    local = os.path.join(configs, "local.json")
    done = run([plain_loop, "--holdfast.config", local], folder, HOLDFAST_EVERY="20")
    versions = json.loads(run([holdfast, "ls", "runs/spiral", "--json"], folder).stdout)["versions"]
    steps = sorted(version["step"] for version in versions)
    expect("plain_loop trains with configs/local.json and keeps 5 versions, one every 20 steps",
           done.returncode == 0 and steps == [560, 580, 600, 620, 640], f"{done.returncode} {steps}\n{done.stderr}")

    with open(os.path.join(folder, "mine.json"), "w", encoding="utf-8") as file:
        file.write('{\n  "every": "1epoch",\n  "kep": 5\n}\n')
    done = run([plain_loop], folder, HOLDFAST_CONFIG="mine.json")
    sentence = 'holdfast: mine.json:3: "kep" is not an option of the session; the nearest is "keep"'
    expect("an error in a file ends the program before it does anything",
           done.returncode == 64 and done.stderr.startswith(sentence) and not done.stdout, done)

    for rank, keep in enumerate((5, 7)):
        with open(os.path.join(folder, f"host{rank}.json"), "w", encoding="utf-8") as file:
            file.write(f'{{\n  "keep": {keep}\n}}\n')
    each_its_own = ["sh", "-c", 'exec "$0" --holdfast.config host$RANK.json', plain_loop]
    done = run([holdfast, "launch", "--nproc", "2", *each_its_own], folder)
    sentence = "option keep is '5' (host0.json:2) on rank 0 and '7' (host1.json:2) on rank 1"
    expect("ranks whose files differ report where", done.returncode not in (0, 75) and sentence in done.stderr, done)

sys.exit(1 if problems else 0)
