# Stops a run in each phase of its training, from its first moment on, and continues it until it is complete.
import os
import random
import signal
import time

from phases import Phases

PHASES = ("start-up", "restore", "forward", "backward", "window", "evaluation", "saving")
MOST_SECONDS = 5


def stop_in(phase, programs, home, options, chance, notify):
    """Starts the run, stops it in `phase`, and returns how long it took until all its steps were durable."""
    run = Phases(programs, home, *options)
    if phase == "start-up":
        time.sleep(chance.uniform(0, 0.7))
    elif phase == "restore":
        run.wait("^set-up")
        time.sleep(0.06 + chance.uniform(0, 0.1))
    elif phase == "saving":
        run.wait("^forward", times=chance.randint(2, 4))
        run.process.send_signal(signal.SIGUSR1)
        run.wait("^forward", times=len([line for _, line in run.out if line == "forward"]) + 1)
        time.sleep(chance.uniform(0, 0.1))
    else:
        run.wait("^" + phase, times=chance.randint(1, 4))
        time.sleep(chance.uniform(0, 0.05))
    if run.process.poll() is not None:
        return None, run  # complete
    at = time.monotonic()
    steps_before = sum(1 for _, line in run.out if line == "window")
    notify(run)
    code, ended = run.end()
    # Before the session has begun, the system's own action ends the process.
    assert code == 75 or (code in (-signal.SIGTERM, 0) and phase in ("start-up", "restore", "evaluation")), \
        (phase, code, run.text())
    if steps_before > 0:
        assert "and nothing is saved" not in run.text() and "not saved" not in run.text(), (phase, run.text())
        assert code == 0 or "saved as version" in run.text(), (phase, run.text())
    durable = (run.durable() or ended) - at
    assert durable < MOST_SECONDS, (phase, durable, run.text())
    assert ended - at < MOST_SECONDS, (phase, ended - at, run.text())
    return max(durable, 0), run


def stop_everywhere(programs, folder, times, epochs, megabytes, seed):
    options = ["--epochs", str(epochs), "--megabytes", str(megabytes)]
    whole = Phases(programs, os.path.join(folder, "whole"), *options)
    assert whole.end(seconds=600)[0] == 0, whole.text()
    expected = [line for _, line in whole.out if line.startswith("parameters")]
    assert len(expected) == 1

    chance = random.Random(seed)
    phases = [phase for phase in PHASES for _ in range(times)]
    chance.shuffle(phases)
    took = {phase: [] for phase in PHASES}
    completed = resumed = 0
    home = os.path.join(folder, "run0")
    for phase in phases:
        while True:  # a run that is complete gives way to a new one
            seconds, run = stop_in(phase, programs, home, options, chance,
                                   lambda run: run.process.send_signal(signal.SIGTERM))
            resumed += "resumed version" in run.text()
            if run.process.returncode == 0:
                assert [line for _, line in run.out if line.startswith("parameters")] == expected, run.text()
                completed += 1
                home = os.path.join(folder, f"run{completed}")
            if seconds is not None:
                took[phase].append(seconds)
                break
    last = Phases(programs, home, *options)
    assert last.end(seconds=600)[0] == 0, last.text()
    assert [line for _, line in last.out if line.startswith("parameters")] == expected, "the resumed run computed something else"
    for phase in PHASES:
        assert len(took[phase]) == times
        print(f"{phase}: stops={times} durable_after_at_most={max(took[phase]):.2f}s")
    print(f"stops={len(phases)} resumed={resumed} runs_completed={completed + 1} seed={seed}")
