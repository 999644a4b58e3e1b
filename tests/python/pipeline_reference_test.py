"""An independent check of the pipeline: PyTorch's own parts, assembled by hand, train the same network equally.

usage: pipeline_reference_test.py FOLDER_OF_OUR_PROGRAMS [cpu | cuda]
Without a device: on the CPU, and on one and two GPUs if they exist. Ends with status 77 (skipped) if this Python has no
torch. PyTorch's half is typical user code: DistributedDataParallel over Gloo or NCCL, no_sync() within windows,
autocast, GradScaler, clip_grad_norm_, a SequentialLR that is stepped only after steps that were taken, and an
AveragedModel.
"""

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import timedelta

try:
    import torch
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import torch.distributed as dist
import torch.multiprocessing
from torch.nn.functional import cross_entropy, gelu
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")  # SequentialLR warns about its own code

INPUTS, HIDDEN, CLASSES = 12, 24, 8
DEVICES = ("cpu", "cuda")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Variables of launchers that run this test must not reach the ranks that it starts.
FOREIGN = ("OMPI_", "PMI", "SLURM_", "RANK", "WORLD", "LOCAL_", "MASTER_", "HOLDFAST_")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}

TAIL, NO_TAIL = 41, 48  # samples: windows of 16, 16 and 9, of which 9 are batches of 4, 4 and 1; or three of 16
# Most norms are between 0.2 and 0.5: the first limit clips some gradients, the second all. Both are powers of two
# because in Python number / tensor multiplies by the reciprocal, which for other numbers rounds once more than the
# division in C++.
CLIP = {TAIL: 0.25, NO_TAIL: 0.125}
COMMON = {"epochs": 7, "initial_scale": 2.0**22, "growth_interval": 3, "warmup": 4, "floor": 0.1, "decay": 0.9}
RATES = {"SGD": 0.1, "AdamW": 0.01, "FusedAdamW": 0.01}


def plans_for(world):
    """Every combination on one and two ranks; some on four."""
    plans = []
    for precision, accumulate, clips, size, optimizer in itertools.product(
        DTYPES, (1, 4), (False, True), (TAIL, NO_TAIL), RATES
    ):
        if world == 4 and not (size == TAIL and clips and accumulate == 4):
            continue
        plan = {"precision": precision, "accumulate": accumulate, "batch": 16 // accumulate, "size": size}
        plan.update(optimizer=optimizer, rate=RATES[optimizer], clip=CLIP[size] if clips else 0)
        plan.update(bucket_bytes=25 << 20 if size == TAIL else 1024)  # so that PyTorch keeps one bucket
        plans.append({**COMMON, **plan})
    return plans


# PyTorch's half.


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(INPUTS, HIDDEN)
        self.middle = torch.nn.Linear(HIDDEN, HIDDEN)
        self.last = torch.nn.Linear(HIDDEN, CLASSES)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                k = torch.arange(parameter.numel())
                parameter.copy_((((k * 37 + k * k * 3 + 101 * number) % 257 - 128) / 512).view_as(parameter))

    def forward(self, x):
        return self.last(torch.tanh(self.middle(gelu(self.first(x)))))


def samples(indices):
    i, j = torch.tensor(list(indices))[:, None], torch.arange(INPUTS)
    return ((j * 17 + i * 29 + j * i * 5) % 61 - 30) / 32, (i * 5 % CLASSES).flatten()


def part_of(batch, rank, world):
    """This rank's samples: the first ranks have one more if the division is uneven."""
    each, longer = divmod(len(batch), world)
    begin = rank * each + min(rank, longer)
    return batch[begin : begin + each + (rank < longer)]


def make_optimizer(plan, parameters):
    if plan["optimizer"] == "SGD":
        return torch.optim.SGD(parameters, lr=plan["rate"], momentum=0.9)
    return torch.optim.AdamW(parameters, lr=plan["rate"], weight_decay=0.1, fused=plan["optimizer"] == "FusedAdamW")


def make_scheduler(plan, optimizer, updates):
    warm_up = schedulers.LinearLR(optimizer, start_factor=1 / plan["warmup"], total_iters=plan["warmup"] - 1)
    cosine = schedulers.CosineAnnealingLR(optimizer, updates - plan["warmup"], eta_min=plan["floor"] * plan["rate"])
    return schedulers.SequentialLR(optimizer, [warm_up, cosine], milestones=[plan["warmup"]])


def finite(x):
    return x if math.isfinite(x) else None


def values_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).tolist()


def train(plan, rank, world, device):
    batches = [range(plan["size"])[begin : begin + plan["batch"]] for begin in range(0, plan["size"], plan["batch"])]
    windows = [batches[begin : begin + plan["accumulate"]] for begin in range(0, len(batches), plan["accumulate"])]
    net = Net().to(device)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(plan["decay"]))
    model = DistributedDataParallel(net) if world > 1 else net
    optimizer = make_optimizer(plan, model.parameters())
    scheduler = make_scheduler(plan, optimizer, plan["epochs"] * len(windows))
    low = plan["precision"] != "fp32"
    scaler = torch.amp.GradScaler(
        device, plan["initial_scale"], growth_interval=plan["growth_interval"], enabled=plan["precision"] == "fp16"
    )
    result = {"scales": [], "stepped": [], "rates": [], "norms": []}
    losses = []
    for window in windows * plan["epochs"]:
        in_window = sum(len(batch) for batch in window)
        for batch in window:
            mine = part_of(batch, rank, world)
            weight = len(mine) * world / in_window
            inputs, targets = (part.to(device) for part in samples(mine or batch[:1]))  # all do the same, some at weight 0
            alone = world > 1 and batch is not window[-1]
            with model.no_sync() if alone else contextlib.nullcontext():
                with torch.autocast(device, DTYPES[plan["precision"]] if low else None, enabled=low):
                    loss = cross_entropy(model(inputs), targets)
                scaler.scale(loss * weight).backward()
            losses.append(finite(loss.item()))
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), plan["clip"] or math.inf)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        stepped = scaler.get_scale() >= before
        result["rates"].append(optimizer.param_groups[0]["lr"])
        result["norms"].append(finite(norm.item()))
        result["scales"].append(scaler.get_scale())
        result["stepped"].append(stepped)
        if stepped:
            scheduler.step()
            averaged.update_parameters(net)
        optimizer.zero_grad(set_to_none=True)
    result["losses"] = [losses]
    if world > 1:
        result["losses"] = [None] * world
        dist.all_gather_object(result["losses"], losses)
    result["updates"] = result["stepped"].count(True)
    result["skipped"] = result["stepped"].count(False)
    result["weights"] = values_of(net)
    result["averages"] = values_of(averaged.module)
    return result


def train_all(rank, world, device, folder, results):
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        backend = {"cpu": "gloo", "cuda": "nccl"}[device]
        meeting = f"file://{results}.meeting"  # a file, because another process could take a port in between
        dist.init_process_group(backend, meeting, timedelta(seconds=120), rank=rank, world_size=world)
    trained = [train(plan, rank, world, device) for plan in plans_for(world)]
    if rank == 0:
        with open(results, "w") as file:
            json.dump(trained, file)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def by_pytorch(world, device, folder):
    results = os.path.join(folder, f"pytorch-{device}{world}.json")
    # This process computes nothing itself, so its children can be forks of it, which shortens their start.
    torch.multiprocessing.start_processes(train_all, (world, device, folder, results), nprocs=world, start_method="fork")
    with open(results) as file:
        return json.load(file)


def by_holdfast(programs, world, device, folder):
    plans, results = (os.path.join(folder, f"{what}-{device}{world}.json") for what in ("plans", "holdfast"))
    with open(plans, "w") as file:
        json.dump(plans_for(world), file)
    command = [os.path.join(programs, "pipeline_reference"), plans, results]
    command += ["--holdfast.dir", folder, "--holdfast.run", f"{device}{world}"]
    command += ["--holdfast.device", device, "--holdfast.threads", "1"]
    if world > 1:
        command = [os.path.join(programs, "holdfast"), "launch", "--nproc", str(world), "--", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    with open(results) as file:
        answer = json.load(file)
    assert answer["ranks"] == world, f"{answer['ranks']} ranks trained, not {world}"
    return answer


# Comparison. Both halves run the kernels of the same LibTorch, so if stage and peer make the same calls they agree to
# the bit. They do not agree
# - in AdamW, where the C++ class and the Python class round in different places,
# - on four ranks, where Gloo adds a gradient's parts in an order that depends on its place in the bucket,
# - in the averages with fp16: Ema moves them by a difference times a weight because only the device may know whether
#   the step was skipped, and PyTorch uses lerp.
# In these cases each of 21 steps may round differently, by about 6e-8 in float32. In bf16 and fp16 that sometimes moves
# an operand to the other side of a rounding: 4e-3 or 5e-4 of one of at least twelve terms of a sum.
TOLERANCE = {"fp32": 5e-6, "bf16": 5e-3, "fp16": 5e-3}
TOLERANCE_OF_AVERAGES = 1e-6
TOLERANCE_OF_RATES = 1e-12  # a chain of products compared with a closed form, in float64


def difference(ours, theirs):
    """The largest relative difference; infinite if the two differ in shape."""
    if len(ours) != len(theirs) or any((a is None) != (b is None) for a, b in zip(ours, theirs)):
        return math.inf
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs) if b is not None)


def distance(ours, theirs):
    """The distance of two vectors relative to the length of theirs; infinite if ours has another size or gaps."""
    if len(ours) != len(theirs) or None in ours:
        return math.inf
    return math.dist(ours, theirs) / math.hypot(*theirs)


def compare(plan, world, ours, theirs, same_library):
    """Returns what disagrees, whether all agreed to the bit, and the largest relative difference."""
    wrong = []
    for what in ("scales", "stepped", "updates", "skipped"):
        if ours[what] != theirs[what]:
            wrong.append(f"{what}: {ours[what]}, PyTorch has {theirs[what]}")
    rates = difference(ours["rates"], theirs["rates"])
    if not rates <= TOLERANCE_OF_RATES:
        wrong.append(f"rates: {rates:.1e} apart: {ours['rates']}, PyTorch has {theirs['rates']}")
    by_rank = itertools.zip_longest(ours["losses"], theirs["losses"], fillvalue=[])
    apart = {
        "losses": max(difference(a, b) for a, b in by_rank),
        "norms": difference(ours["norms"], theirs["norms"]),
        "weights": distance(ours["weights"], theirs["weights"]),
        "averages": distance(ours["averages"], theirs["averages"]),
    }
    same_calls = same_library and world <= 2 and plan["optimizer"] != "AdamW"
    for what, far in apart.items():
        largest = 0 if same_calls else TOLERANCE[plan["precision"]]
        if same_calls and what == "averages" and plan["precision"] == "fp16":
            largest = TOLERANCE_OF_AVERAGES
        if not far <= largest:
            wrong.append(f"{what}: {far:.1e} apart, at most {largest} is right")
    return wrong, not any(apart.values()), max(apart.values())


def growths(plan, theirs):
    return sum(b > a for a, b in itertools.pairwise([plan["initial_scale"], *theirs["scales"]]))


def check_sharpness(plan, theirs):
    """Asserts that the plan tests what it is meant to test."""
    norms = [norm for norm in theirs["norms"] if norm is not None]
    clipped = sum(norm > plan["clip"] for norm in norms)
    assert theirs["updates"] + theirs["skipped"] == 3 * plan["epochs"], plan
    assert plan["precision"] != "fp16" or theirs["skipped"] >= 4, f"{plan}: {theirs['skipped']} skipped"
    assert plan["precision"] != "fp16" or growths(plan, theirs) >= 2, f"{plan}: the scale hardly grew"
    assert not plan["clip"] or clipped >= 3, f"{plan}: {clipped} clipped"
    assert plan["clip"] != CLIP[TAIL] or len(norms) - clipped >= 3, f"{plan}: {clipped} of {len(norms)} clipped"


def worlds_here(device):
    if device == "cpu":
        return [1, 2, 4]
    # A query to CUDA here would make CUDA unusable in the children, which are forked.
    return [world for world in (1, 2) if torch.version.cuda and os.path.exists(f"/dev/nvidia{world - 1}")]


def main(programs, *devices):
    began = time.monotonic()
    failed, counts = [], dict.fromkeys(("combinations", "updates", "skipped", "grown", "to_the_bit"), 0)
    worst = dict.fromkeys(DTYPES, 0)
    with tempfile.TemporaryDirectory() as folder:
        for device, world in ((device, world) for device in devices or DEVICES for world in worlds_here(device)):
            plans, peers = plans_for(world), by_pytorch(world, device, folder)
            answer = by_holdfast(programs, world, device, folder)
            same_library = answer["libtorch"] == torch.__version__.split("+")[0]
            assert len(plans) == len(peers) == len(answer["plans"])
            for plan, ours, theirs in zip(plans, answer["plans"], peers):
                check_sharpness(plan, theirs)
                wrong, to_the_bit, far = compare(plan, world, ours, theirs, same_library)
                name = ", ".join(f"{what} {plan[what]}" for what in ("accumulate", "clip", "size"))
                failed += [f"{plan['precision']}, {plan['optimizer']}, {device}, ranks {world}, {name}: {one}" for one in wrong]
                counts["combinations"] += 1
                counts["updates"] += theirs["updates"]
                counts["skipped"] += theirs["skipped"]
                counts["grown"] += growths(plan, theirs)
                counts["to_the_bit"] += to_the_bit
                worst[plan["precision"]] = max(worst[plan["precision"]], far)
    print("\n".join(failed[:40]))
    if not same_library:
        print(f"LibTorch {answer['libtorch']} is not this Python's {torch.__version__}: nothing need agree to the bit")
    words = [f"{what}={count}" for what, count in counts.items()] + [f"failed={len(failed)}"]
    words += [f"worst_{precision}={far:.1e}" for precision, far in worst.items()]
    print(f"pipeline reference: {' '.join(words)} seconds={time.monotonic() - began:.0f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
