# The cost of a replay buffer of structs compared with one packed into tensors by hand: saves and loads in turn.
#   python tests/bench/values_bench.py build/bin [ROUNDS [ENTRIES]]
# A save ends when the version is durable; a load when every entry is loaded. `holdfast ls` of the run is also timed.
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

programs = sys.argv[1]
rounds, entries = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((2, 5), (3, 100000)))


def seconds(form, what, folder):
    command = [f"{programs}/values_bench", form, what, str(entries), folder]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(ended.stdout + ended.stderr)
    return float(ended.stdout.split()[0])


times = {(form, what): [] for form in ("structs", "packed") for what in ("save", "load")}
listing = []
for turn in range(rounds):
    folder = tempfile.mkdtemp(dir=".", prefix="values-bench-")
    for what in ("save", "load"):
        for form in ("structs", "packed") if turn % 2 else ("packed", "structs"):
            times[form, what].append(seconds(form, what, folder))
    begin = time.perf_counter()
    subprocess.run([f"{programs}/holdfast", "ls", f"{folder}/structs"], capture_output=True, check=True)
    listing.append(time.perf_counter() - begin)
    shutil.rmtree(folder)
for what in ("save", "load"):
    ratios = [a / b for a, b in zip(times["structs", what], times["packed", what])]
    print(f"{what} of {entries} entries, {rounds} rounds in turn: structs {statistics.median(times['structs', what]):.3f} s, "
          f"packed {statistics.median(times['packed', what]):.3f} s, structs / packed {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f})")
print(f"holdfast ls: {1000 * statistics.median(listing):.1f} ms")
