# Ranks on real GPUs are killed and started again; the last version must equal that of uninterrupted ranks. Also: if a
# rank dies while the others are inside an NCCL operation, they stop within seconds.
import concurrent.futures
import random
import subprocess
import sys
import tempfile
import time

from chain import command

programs = sys.argv[1]
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 16
try:
    import torch
except ImportError:
    sys.exit(77)
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
if gpus == 0:
    print("no GPU here: skipped")
    sys.exit(77)


def start(ranks, folder, run, precision, every, kill="", kill_rank=-1):
    launch = [] if ranks == 1 else [f"{programs}/holdfast", "launch", "--nproc", str(ranks), "--"]
    program = command(programs, folder, run, steps, every, kill, precision=precision, device="cuda", kill_rank=kill_rank)
    begin = time.monotonic()
    ended = subprocess.run(launch + program, capture_output=True, text=True, timeout=300)
    return ended.returncode, time.monotonic() - begin, ended.stdout + ended.stderr


def check_chain(ranks, precision, folder):
    rng = random.Random(ranks)
    code, _, text = start(ranks, folder, f"whole-{ranks}-{precision}", precision, "never")
    assert code == 0, text
    run = f"killed-{ranks}-{precision}"
    kills = 0
    slowest = 0
    for turn in range((steps + 8) * 4 + 10):  # whole epochs of eight steps
        kill_rank = -1 if turn % 3 == 0 else rng.randrange(ranks)
        kill = rng.choice(["before", "after", "inside", "S2", "S6"][: 3 if kill_rank > 0 else 5])
        code, seconds, text = start(ranks, folder, run, precision, "1", kill, kill_rank)
        if code == 0:
            break
        kills += 1
        slowest = max(slowest, seconds)
        assert "since the last version" not in text or ranks > 1, text
    assert code == 0, text
    diff = subprocess.run(
        [f"{programs}/holdfast", "diff", f"{folder}/whole-{ranks}-{precision}", f"{folder}/{run}"],
        capture_output=True, text=True)
    assert diff.returncode == 0, diff.stdout + diff.stderr
    return f"ranks={ranks} precision={precision} steps={steps} kills={kills} differing=0, slowest turn {slowest:.1f} s"


with tempfile.TemporaryDirectory() as folder:
    chains = [(ranks, precision) for ranks in (1, 2) for precision in ("bf16", "fp16")]
    if gpus < 2:
        print(f"{gpus} GPU here: the chains of two are skipped")
        chains = [chain for chain in chains if chain[0] == 1]
    # A chain spends most of its time on starts, so the chains share the GPUs.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for said in pool.map(lambda chain: check_chain(*chain, folder), chains):
            print(said, flush=True)
    if gpus >= 2:
        # The other ranks' messages name the rank that died.
        code, seconds, text = start(2, folder, "fault", "bf16", "never", "inside", 1)
        print(text)
        assert code != 0 and "rank 1" in text, text
        print(f"a death inside NCCL: over after {seconds:.1f} s in all, start included")
