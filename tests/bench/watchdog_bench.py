# The cost of the watchdog over the ranks: the same steps with it and without it, in turn.
#   python tests/bench/watchdog_bench.py build/bin [ROUNDS [STEPS [WIDTH]]]
import re
import statistics
import subprocess
import sys

programs = sys.argv[1]
rounds, steps, width = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((2, 9), (3, 600), (4, 384)))


def median_step(watch):
    command = [f"{programs}/holdfast", "launch", "--nproc", "2", "--", f"{programs}/watchdog_bench", watch, str(steps), str(width)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(ended.stdout + ended.stderr)
    return float(re.search(r"(\d+\.\d+)\s*$", ended.stdout).group(1))


ratios, times = [], {"on": [], "off": []}
for turn in range(rounds):
    order = ("on", "off") if turn % 2 else ("off", "on")
    here = {watch: median_step(watch) for watch in order}
    ratios.append(here["on"] / here["off"])
    for watch in here:
        times[watch].append(here[watch])
print(f"2 ranks, {steps} steps a round, {rounds} rounds in turn; median step without the watch "
      f"{statistics.median(times['off']):.3f} ms, with it {statistics.median(times['on']):.3f} ms")
print(f"with / without: median {statistics.median(ratios):.4f}, from {min(ratios):.4f} to {max(ratios):.4f}")
