"""An independent check of the learning-rate schedules: stepping PyTorch's own schedulers gives the same factors.

usage: learning_rate_test.py FOLDER_OF_OUR_PROGRAMS
Ends with status 77 (skipped) if this Python has no torch.
"""

import json
import math
import os
import random
import subprocess
import sys
import warnings

try:
    import torch
    from torch.optim import lr_scheduler as schedulers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")  # SequentialLR warns about its own code

BASE = 0.37  # the optimizer's initial lr; not a power of two, so that confusing a factor with a rate is detected
TOLERANCE = 1e-12


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)


def warmed_up(o, warmup):
    """1/warmup at the first step, 1 at the last."""
    if warmup < 2:
        return schedulers.ConstantLR(o, factor=1.0)
    return schedulers.LinearLR(o, start_factor=1 / warmup, end_factor=1.0, total_iters=warmup - 1)


def warmup_cosine(o, warmup, total, floor):
    cosine = schedulers.CosineAnnealingLR(o, T_max=total - warmup, eta_min=floor * BASE)
    if warmup == 0:  # with a milestone at 0 SequentialLR would stay one step behind
        return cosine
    return schedulers.SequentialLR(o, [warmed_up(o, warmup), cosine], milestones=[warmup])


def one_cycle(o, total, max_lr, pct_start, anneal, div_factor, final_div_factor, three_phase):
    return schedulers.OneCycleLR(
        o, max_lr=BASE * max_lr, total_steps=total, pct_start=pct_start, cycle_momentum=False,
        anneal_strategy={"cosine": "cos", "linear": "linear"}[anneal], div_factor=div_factor,
        final_div_factor=final_div_factor, three_phase=three_phase,
    )  # fmt: skip


PEERS = {
    "constant": lambda o: schedulers.ConstantLR(o, factor=1.0),
    "linear_warmup": warmed_up,
    "warmup_cosine": warmup_cosine,
    "cosine": lambda o, total, floor: schedulers.CosineAnnealingLR(o, T_max=total, eta_min=floor * BASE),
    "step": lambda o, every, factor: schedulers.StepLR(o, every, factor),
    "multi_step": lambda o, milestones, factor: schedulers.MultiStepLR(o, milestones, factor),
    "exponential": lambda o, factor: schedulers.ExponentialLR(o, factor),
    "polynomial": lambda o, total, power: schedulers.PolynomialLR(o, total, power),
    "linear": lambda o, start, to, total: schedulers.LinearLR(o, start, to, total),
    "one_cycle": one_cycle,
}


def parameters(kind, generator):
    """One maker's parameters, and the number of steps to compare: beyond `total` if PyTorch stays constant there."""
    total = generator.randint(2, 400)
    floor = generator.choice([0, 0.1, generator.random()])
    factor = generator.choice([0.1, 0.5, 0.99, 1.01])
    beyond = total + 200
    return {
        "constant": lambda: ({}, 100),
        "linear_warmup": lambda: ({"warmup": total}, beyond),
        "warmup_cosine": lambda: (
            {"warmup": generator.choice([0, 1, total // 2, total - 1]), "total": total, "floor": floor}, total + 1),
        "cosine": lambda: ({"total": total, "floor": floor}, total + 1),
        "step": lambda: ({"every": generator.randint(1, 50), "factor": factor}, 500),
        "multi_step": lambda: (
            {"milestones": sorted(generator.sample(range(1, 400), generator.randint(1, 6))), "factor": factor}, 500),
        "exponential": lambda: ({"factor": factor}, 500),
        "polynomial": lambda: ({"total": total, "power": generator.choice([0.5, 1, 2, 3.7])}, beyond),
        "linear": lambda: (
            {"from": generator.uniform(0.01, 1), "to": generator.uniform(0.01, 1), "total": total}, beyond),
        "one_cycle": lambda: (
            {"total": total, "max_lr": generator.choice([1, 10.0]), "pct_start": generator.uniform(0, 0.5),
             "anneal": generator.choice(["cosine", "linear"]), "div_factor": generator.choice([25, 3.0]),
             "final_div_factor": generator.choice([1e4, 7]), "three_phase": generator.random() < 0.5}, total),
    }[kind]()  # fmt: skip


def stepped(kind, arguments, steps):
    """The factors that a user of PyTorch gets; and those of PyTorch's closed form, if there is one."""
    o = optimizer()
    arguments = {{"from": "start"}.get(name, name): value for name, value in arguments.items()}
    scheduler = PEERS[kind](o, **arguments)
    rates, closed = [], []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0] / BASE)
        if hasattr(scheduler, "_get_closed_form_lr"):
            closed.append(scheduler._get_closed_form_lr()[0] / BASE)
        o.step()
        scheduler.step()
    return rates, closed


def plateau(generator):
    mode = generator.choice(["min", "max"])
    metrics = [generator.choice([1, 0.1]) * generator.random() + (1 if mode == "max" else 0) for _ in range(400)]
    for odd in (math.nan, math.inf):
        if generator.random() < 0.5:
            metrics[generator.randrange(len(metrics))] = odd
    return {
        "kind": "plateau", "mode": mode, "factor": generator.choice([0.1, 0.5, 0.9]),
        "patience": generator.randint(0, 12), "threshold": generator.choice([0, 1e-4, 0.1]),
        "threshold_mode": generator.choice(["rel", "abs"]), "cooldown": generator.randint(0, 8),
        "min_lr": generator.choice([0, 1e-3, 0.3]), "metrics": [repr(metric) for metric in metrics],
        "resume": generator.randrange(-1, 400),
    }  # fmt: skip


def observed(of):
    o = optimizer()
    scheduler = schedulers.ReduceLROnPlateau(
        o, of["mode"], of["factor"], of["patience"], of["threshold"], of["threshold_mode"], of["cooldown"],
        BASE * of["min_lr"], eps=0,
    )  # fmt: skip
    rates = []
    for metric in of["metrics"]:
        scheduler.step(float(metric))
        rates.append(o.param_groups[0]["lr"] / BASE)
    return rates


def check(what, ours, peers, absolute=sys.float_info.min):
    """Differences below `absolute` are ignored; subnormal numbers have lost digits in any case."""
    what = str({name: value for name, value in what.items() if name != "metrics"})
    assert len(ours) == len(peers), what
    for step, (our, peer) in enumerate(zip(ours, peers)):
        near = math.isclose(our, peer, rel_tol=TOLERANCE, abs_tol=absolute)
        assert near, f"{what} at step {step}: {our!r}, PyTorch has {peer!r}"
    return len(ours)


def ask(program, schedules):
    done = subprocess.run([program], input=json.dumps(schedules), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


generator = random.Random(1)
cases = []
for kind in PEERS:
    for _ in range(20):
        arguments, steps = parameters(kind, generator)
        cases.append({"kind": kind, "steps": steps, **arguments})
plateaus = [plateau(generator) for _ in range(60)]

answers = ask(os.path.join(sys.argv[1], "learning_rate"), cases + plateaus)
values = 0
for of, ours in zip(cases, answers):
    arguments = {name: value for name, value in of.items() if name not in ("kind", "steps")}
    rates, closed = stepped(of["kind"], arguments, of["steps"])
    # Near 0 these PyTorch schedules subtract almost equal numbers and lose digits; the closed forms lose fewer.
    nears_zero = of["kind"] in ("cosine", "warmup_cosine", "polynomial", "one_cycle")
    values += check(of, ours, rates, **({"absolute": TOLERANCE} if nears_zero else {}))
    if closed:
        check(of, ours, closed)
for of, ours in zip(plateaus, answers[len(cases):]):
    values += check(of, ours, observed(of))
reductions = sum(len(set(ours)) for ours in answers[len(cases):])
assert reductions > 3 * len(plateaus), "the plateaus hardly ever reduced"
print(f"learning rate: schedules={len(answers)} values={values} differences=0")
