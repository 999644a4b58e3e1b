"""How training scales over the GPUs of a host, in C++ and in Python: the same work, in turn, in one run.

  encoder_bench.py build/bin                 Holdfast, a loop by hand over LibTorch, and Python, on 1 and on N GPUs
  encoder_bench.py build/bin --table         Holdfast in many configurations on N GPUs
  encoder_bench.py build/bin --breakdown     where the time goes
  encoder_bench.py build/bin --small         the whole program on the CPU with a tiny model: tries it, measures nothing

The work: a transformer encoder of 606 M parameters (12 layers, width 2048, 16 heads, feed-forward 8192), 16 x 512
tokens on each GPU, bf16 autocast, fused AdamW. On one GPU nobody exchanges gradients; on several Python's
DistributedDataParallel does (gradient_as_bucket_view), c10d's Reducer by hand, and Ddp.

Each variant is a group of processes that keeps its model; the groups take turns, in the other order every other round,
and are idle else: nobody waits inside a collective. A step's time is that between two CUDA events of rank 0; nothing
waits for the device while a round runs. Medians and percentiles are over all timed steps; ratios and efficiencies are
of medians within a round, and then the median over rounds.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

FULL = dict(layers=12, width=2048, heads=16, feed_forward=8192, batch=16, tokens=512)
SMALL = dict(layers=2, width=64, heads=4, feed_forward=128, batch=4, tokens=16)
VOCABULARY = 256
LEARNING_RATE = 1e-5  # as in encoder_bench.cc


# ----------------------------------------------------------------------------------------------------------------------
# Python's side: one rank, with the orders and answers of encoder_bench.cc


def answer(**what):
    print("bench", json.dumps(what), flush=True)


def worker(settings):
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn import functional as F

    s = {name: int(value) for name, value in settings.items() if name in FULL}
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = settings["device"] == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(s["width"], 3 * s["width"])
            self.out = nn.Linear(s["width"], s["width"])

        def forward(self, x):
            batch, length, width = x.shape
            parts = self.qkv(x).view(batch, length, 3, s["heads"], width // s["heads"]).transpose(1, 3).unbind(2)
            mixed = F.scaled_dot_product_attention(*parts)
            return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(s["width"])
            self.attention = Attention()
            self.norm2 = nn.LayerNorm(s["width"])
            self.up = nn.Linear(s["width"], s["feed_forward"])
            self.down = nn.Linear(s["feed_forward"], s["width"])
            self.dropout = nn.Dropout(0.0)

        def forward(self, x):
            x = x + self.dropout(self.attention(self.norm1(x)))
            return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, s["width"])
            self.positions = nn.Embedding(s["tokens"], s["width"])
            self.dropout = nn.Dropout(0.0)
            self.norm = nn.LayerNorm(s["width"])
            self.blocks = nn.ModuleList(Block() for _ in range(s["layers"]))
            for name, parameter in self.named_parameters():
                if parameter.dim() >= 2:
                    ends_branch = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(parameter, std=0.02 / (2 * s["layers"]) ** 0.5 if ends_branch else 0.02)

        def forward(self, tokens):
            places = torch.arange(tokens.size(1), device=tokens.device)
            x = self.dropout(self.tokens(tokens) + self.positions(places))
            for block in self.blocks:
                x = block(x)
            return F.linear(self.norm(x), self.tokens.weight)

    torch.manual_seed(1)
    with torch.device(device):
        net = Transformer()
    model = net
    if ranks > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        cap = {"bucket_cap_mb": float(settings["bucket_mb"])} if "bucket_mb" in settings else {}
        model = nn.parallel.DistributedDataParallel(
            net, device_ids=[device.index] if on_gpu else None, gradient_as_bucket_view=True, **cap
        )
        if settings.get("compress", "none") == "bf16":
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            model.register_comm_hook(dist.group.WORLD, bf16_compress_hook)
        dist.all_reduce(torch.ones(1, device=device))  # NCCL connects here instead of in a round
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, fused=True)
    generator = torch.Generator().manual_seed(2 + rank)
    shape = (s["batch"], s["tokens"])
    tokens, targets = (torch.randint(VOCABULARY, shape, generator=generator).to(device) for _ in range(2))

    class Mark:
        def __init__(self):
            self.time = time.perf_counter()
            if on_gpu:
                self.event = torch.cuda.Event(enable_timing=True)
                self.event.record()

        def to(self, later):
            return self.event.elapsed_time(later.event) if on_gpu else (later.time - self.time) * 1e3

    def synchronize():
        if on_gpu:
            torch.cuda.synchronize()

    last_gradient = []
    timing = False
    if settings.get("mark_last_gradient") == "1":
        net.tokens.weight.register_hook(lambda _: last_gradient.append(Mark()) if timing else None)

    def step():
        begin = Mark() if timing else None
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        forward = Mark() if timing else None
        loss.backward()
        backward = Mark() if timing else None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return (begin, forward, backward, Mark() if timing else None), loss.detach()

    facts = {"torch": torch.__version__}
    if on_gpu:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        facts["gpu"] = torch.cuda.get_device_name()
    answer(ready=True, parameters=sum(p.numel() for p in net.parameters()), **facts)
    for line in sys.stdin:
        order = line.split()
        if order[0] == "quit":
            break
        warm, steps = int(order[1]), int(order[2])
        timing = False
        for _ in range(warm):
            step()
        synchronize()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        timing = True
        last_gradient.clear()
        begin = time.perf_counter()
        marks = []
        for _ in range(steps):
            marks.append(step())
        end = Mark()
        issued = time.perf_counter()
        synchronize()
        times = {"wall": (time.perf_counter() - begin) * 1e3 / steps, "host": (issued - begin) * 1e3 / steps}
        nexts = [marks[i][0][0] for i in range(1, steps)] + [end]
        times["step"] = [at[0].to(after) for (at, _), after in zip(marks, nexts)]
        times["forward"] = [at[0].to(at[1]) for at, _ in marks]
        times["backward"] = [at[1].to(at[2]) for at, _ in marks]
        times["update"] = [at[2].to(at[3]) for at, _ in marks]
        if last_gradient:
            times["tail"] = [mark.to(at[2]) for mark, (at, _) in zip(last_gradient, marks)]
        reply = {"times": times, "loss": float(marks[-1][1])}
        if on_gpu:
            reply["peak_bytes"] = torch.cuda.max_memory_allocated()
        del marks, nexts
        if on_gpu:
            torch.cuda.empty_cache()  # other groups take their turns on the same device
        answer(**reply)
    sys.stdout.flush()
    os._exit(0)  # the ranks end together; none of their data is kept


# ----------------------------------------------------------------------------------------------------------------------
# Groups of processes that take turns


class Failed(Exception):
    pass


class Group:
    """The ranks of one variant; they are idle until they get an order."""

    def __init__(self, bench, title, kind, ranks, settings, environment=None):
        self.title, self.ranks, self.failure = title, ranks, None
        self.processes, self.answers = [], []
        self.folder = tempfile.mkdtemp(dir=bench.folder)
        given = {"device": bench.device, **bench.model, **settings}
        if kind != "python":
            given["folder"] = self.folder
        words = [f"{name}={value}" for name, value in given.items()]
        command = [sys.executable, os.path.abspath(__file__), "--worker"] if kind == "python" else [bench.program, kind]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(ranks):
            variables = {
                **os.environ,
                "NCCL_NVLS_ENABLE": "0",
                "OMP_NUM_THREADS": "1" if bench.device == "cpu" else "4",
                **bench.environment,
                **(environment or {}),
                **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
                **{name: str(ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            with open(self.log(rank), "w") as log:
                process = subprocess.Popen(
                    command + words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
            lines = queue.Queue()
            threading.Thread(target=self.read, args=(process, lines), daemon=True).start()
            self.processes.append(process)
            self.answers.append(lines)

    @staticmethod
    def read(process, lines):
        for line in process.stdout:
            if line.startswith("bench "):
                lines.put(json.loads(line[len("bench ") :]))
        lines.put(None)

    def log(self, rank):
        return os.path.join(self.folder, f"rank{rank}.log")

    def hear(self, within):
        """Every rank's answer."""
        deadline, heard = time.monotonic() + within, []
        for rank, lines in enumerate(self.answers):
            try:
                one = lines.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"rank {rank} of {self.title} did not answer within {within} s\n{self.last_words()}")
            if one is None:
                raise Failed(f"rank {rank} of {self.title} ended\n{self.last_words()}")
            heard.append(one)
        return heard

    def last_words(self):
        text = ""
        for rank in range(self.ranks):
            with open(self.log(rank), errors="replace") as log:
                tail = log.read().strip().splitlines()[-12:]
            text += "".join(f"    rank {rank}: {line}\n" for line in tail)
        return text.rstrip()

    def order(self, what):
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):  # hear() reports it
                process.stdin.write(what + "\n")
                process.stdin.flush()

    def ask(self, what, within=180):
        self.order(what)
        return self.hear(within)

    def end(self):
        for process in self.processes:
            if self.failure:
                process.kill()
            with contextlib.suppress(OSError):
                process.stdin.write("quit\n")
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Row:
    """The measurements of one variant, or of one way of driving it."""

    def __init__(self, name, group, how=""):
        self.name, self.group, self.how = name, group, how
        self.turns = {}  # by number of the turn: rank 0's answer
        self.apart = 0.0  # the largest difference of ranks' medians within a turn

    @property
    def ranks(self):
        return self.group.ranks

    @property
    def failure(self):
        return self.group.failure

    def run(self, turn, warm, steps):
        heard = self.group.ask(f"round {warm} {steps} {self.how}".strip())
        self.turns[turn] = heard[0]
        medians = [statistics.median(one["times"]["step"]) for one in heard]
        self.apart = max(self.apart, max(medians) / min(medians) - 1)

    def all(self, part):
        return [one for answer in self.turns.values() for one in answer["times"].get(part, [])]

    def median(self, part):
        values = self.all(part)
        return statistics.median(values) if values else None

    def of_turn(self, turn):
        return statistics.median(self.turns[turn]["times"]["step"])

    def against(self, other):
        """The ratio of our time to the other's, turn by turn."""
        return [self.of_turn(turn) / other.of_turn(turn) for turn in self.turns if turn in other.turns]


class Bench:
    """State shared by all measurements of a run."""

    def __init__(self, options, facts):
        self.program = os.path.join(options.bin, "encoder_bench")
        self.device = "cpu" if options.small else "cuda"
        self.model = SMALL if options.small else FULL
        self.environment = dict(word.split("=", 1) for word in options.env)
        self.holdfast = dict(word.split("=", 1) for word in options.holdfast)
        # Ddp's options in effect: the defaults, changed by the command line
        self.ddp = {name: facts[name] for name in ("bucket_mb", "first_bucket_mb", "compress")}
        self.ddp.update(self.holdfast)
        self.bucket_mb, self.first_bucket_mb = float(self.ddp["bucket_mb"]), float(self.ddp["first_bucket_mb"])
        self.many, self.within = options.gpus, options.within
        self.rounds, self.steps, self.warm = options.rounds, options.steps, options.warmup
        self.folder = tempfile.mkdtemp(prefix="holdfast-bench-")
        self.begun, self.turn, self.facts, self.groups, self.left_out = time.monotonic(), 0, {}, [], []

    def say(self, text):
        print(f"[{time.monotonic() - self.begun:4.0f} s] {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def failing(self, row):
        """If a group fails, its rows are lost but the run continues."""
        try:
            yield
        except Failed as error:
            row.group.failure = str(error)
            self.say(error)
            self.end([row])

    def start(self, *wanted):
        """Starts groups of (name, kind, ranks, settings[, environment]), all at once. Returns a row for each."""
        rows = []
        for name, *what in wanted:
            group = Group(self, f"'{name}'", *what)
            self.groups.append(group)
            rows.append(Row(name, group))
        for row in rows:
            with self.failing(row):
                facts = row.group.hear(within=300)[0]
                self.facts.update({name: value for name, value in facts.items() if name != "ready"})
        # Runs what happens in the first steps only, for as many groups at once as fit into the device's memory.
        alive = [row for row in rows if not row.failure]
        for begin in range(0, len(alive), 3):
            part = alive[begin : begin + 3]
            for row in part:
                row.group.order("round 2 1")
            for row in part:
                with self.failing(row):
                    row.group.hear(within=180)
        self.say(f"{sum(not row.failure for row in rows)} groups are there: " + ", ".join(row.name for row in rows))
        return rows

    def has_time_for(self, seconds, what):
        left = None if self.within is None else self.begun + self.within - time.monotonic()
        if left is None or left > seconds:
            return True
        self.left_out.append(what)
        return False

    def measure(self, rows, rounds):
        took = 0
        for number in range(rounds):
            begin = time.monotonic()
            if number > 0 and not self.has_time_for(took, f"{rounds - number} of {rounds} rounds"):
                return
            for row in rows if self.turn % 2 == 0 else rows[::-1]:
                if not row.failure:
                    with self.failing(row):
                        row.run(self.turn, self.warm, self.steps)
            self.turn += 1
            took = time.monotonic() - begin
            self.say(f"round {number + 1} of {rounds}")

    def end(self, rows=None):
        ending = self.groups[:] if rows is None else [row.group for row in rows if row.group in self.groups]
        self.groups = [group for group in self.groups if group not in ending]
        for group in ending:
            group.end()


# ----------------------------------------------------------------------------------------------------------------------
# What is compared

Configuration = collections.namedtuple("Configuration", "name settings environment", defaults=({},))

SIMPLE = {"NCCL_PROTO": "Simple"}


def channels(number):
    return {"NCCL_MIN_NCHANNELS": str(number), "NCCL_MAX_NCHANNELS": str(number)}


CONFIGURATIONS = [
    Configuration("as it ships", {}),
    # how gradients are grouped
    *(Configuration(f"buckets of {size} MB", {"bucket_mb": size}) for size in (10, 25, 50, 100, 200, 800)),
    Configuration("first bucket of 25 MB", {"first_bucket_mb": 25}),
    # in which dtype they travel
    *(Configuration(f"{dtype}, 100 MB", {"compress": dtype, "bucket_mb": 100}) for dtype in ("bf16", "fp16")),
    Configuration("bf16", {"compress": "bf16"}),
    # how NCCL moves them
    Configuration("Simple", {}, SIMPLE),
    Configuration("LL128", {}, {"NCCL_PROTO": "LL128"}),
    Configuration("tree", {}, {"NCCL_ALGO": "Tree"}),
    *(Configuration(f"{number} channels", {}, channels(number)) for number in (4, 8, 16)),
    *(Configuration(f"Simple, {number} channels", {}, {**SIMPLE, **channels(number)}) for number in (8, 16)),
    Configuration("256 threads a channel", {}, {"NCCL_NTHREADS": "256"}),
    Configuration("buffers of 16 MB, Simple", {}, {**SIMPLE, "NCCL_BUFFSIZE": str(16 << 20)}),
    Configuration("registered memory", {}, {"TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK": "1"}),
    # how the device orders the work
    Configuration("one hardware queue", {}, {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}),
    Configuration("32 hardware queues", {}, {"CUDA_DEVICE_MAX_CONNECTIONS": "32"}),
]

HOLDFAST, BY_HAND, PYTHON, OUR_BUCKETS = "Holdfast", "C++ by hand", "Python", ", Holdfast's buckets"


def chosen(words):
    """The configurations that `words` name: by number or range of numbers, as --list prints them, or by name."""
    if not words:
        return CONFIGURATIONS
    found = []
    for word in words:
        first, dash, last = word.partition("-")
        if dash and first.isdigit() and last.isdigit():
            of_word = CONFIGURATIONS[int(first) : int(last) + 1]
        else:
            of_word = [c for i, c in enumerate(CONFIGURATIONS) if word in (str(i), c.name)]
        if not of_word:
            sys.exit(f"'{word}' is not a configuration: --list prints them")
        found += of_word
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Reports


def median_and_range(values, form):
    if not values:
        return ""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def print_table(rows, singles, pythons, by_hand):
    """`singles`: the one-GPU row of each kind of variant, by that row's name; the others by the number of GPUs."""
    print(
        f"{'configuration':34} {'GPUs':>4} {'median ms':>9} {'p5..p95':>15} {'medians of rounds':>17}  "
        f"{'efficiency T1/TN':22} {'time / Python':22} {'time / by hand':22} {'peak GB':>7} {'loss':>7}"
    )
    for row in rows:
        if row.failure or not row.turns:
            reason = (row.failure or "not measured").splitlines()
            print(f"{row.name:34} {row.ranks:4}  failed: {reason[0]}; {reason[-1].strip() if reason[1:] else ''}")
            continue
        steps, of_rounds = row.all("step"), [row.of_turn(turn) for turn in row.turns]
        last = row.turns[max(row.turns)]

        def ratio(other, form=".4f", inverse=False):
            if other is None or other is row or not other.turns:
                return ""
            return median_and_range([1 / r if inverse else r for r in row.against(other)], form)

        single = singles.get(row.name) if row.ranks > 1 else None
        print(
            f"{row.name:34} {row.ranks:4} {statistics.median(steps):9.2f} "
            f"{percentile(steps, 0.05):7.2f}..{percentile(steps, 0.95):<6.2f} "
            f"{min(of_rounds):8.2f}..{max(of_rounds):<7.2f}  {ratio(single, '.3f', inverse=True):22} "
            f"{ratio(pythons.get(row.ranks)):22} {ratio(by_hand.get(row.ranks)):22} "
            f"{last.get('peak_bytes', 0) / 1e9:7.1f} {last['loss']:7.3f}"
        )
        if row.apart > 0.01:
            print(f"{'':34} the ranks' own medians were up to {row.apart:.1%} apart")


def print_head(bench, what):
    f, m = bench.facts, bench.model
    print(
        f"\n{what}: {m['layers']} layers, width {m['width']}, {m['heads']} heads, feed-forward {m['feed_forward']}: "
        f"{f.get('parameters', 0) / 1e6:.1f} M parameters; {m['batch']} x {m['tokens']} tokens a rank, bf16"
    )
    machine = f"{f.get('gpu', 'no GPU')}, torch {f.get('torch', '?')}" + (f", NCCL {f['nccl']}" if "nccl" in f else "")
    print(f"{machine}; rounds of {bench.warm} + {bench.steps} steps")
    print("Ddp's options: " + ", ".join(f"{name}={value}" for name, value in bench.ddp.items()))
    if bench.ddp["compress"] != "none":
        print("Gradients travel in fewer bits in Holdfast's rows, and in no other that does not say so.")
    if bench.left_out:
        print(f"--within {bench.within:g} s left no time for " + "; ".join(bench.left_out))
    if bench.environment:
        print("all with " + ", ".join(f"{name}={value}" for name, value in bench.environment.items()))
    if bench.device == "cpu":
        print("ON THE CPU WITH A TINY MODEL: this shows that the program works. The numbers mean nothing.")
    print()


def save(path, rows):
    if not path:
        return
    with open(path, "w") as out:
        json.dump([{"name": r.name, "ranks": r.ranks, "failure": r.failure, "turns": r.turns} for r in rows], out)


# ----------------------------------------------------------------------------------------------------------------------
# Measurements


def compare(bench):
    many = bench.many
    wanted = [
        (HOLDFAST, "holdfast", 1, bench.holdfast),
        (BY_HAND, "plain", 1, {}),
        (PYTHON, "python", 1, {}),
    ]
    if many > 1:
        wanted += [
            (HOLDFAST, "holdfast", many, bench.holdfast),
            (BY_HAND, "plain", many, {}),
            (PYTHON, "python", many, {}),
        ]
        if (bench.bucket_mb, bench.first_bucket_mb) != (25, 1):  # Python's default
            size = {"bucket_mb": bench.bucket_mb}
            wanted += [
                (BY_HAND + OUR_BUCKETS, "plain", many, {**size, "first_bucket_mb": bench.first_bucket_mb}),
                (PYTHON + OUR_BUCKETS, "python", many, size),  # Python has no other size for the first bucket
            ]
    rows = bench.start(*wanted)
    bench.measure(rows, bench.rounds)
    of = {(row.name, row.ranks): row for row in rows}
    by_hand = {ranks: of.get((BY_HAND + OUR_BUCKETS, ranks), of[BY_HAND, ranks]) for ranks in {1, many}}
    kinds = (HOLDFAST, BY_HAND, PYTHON)
    print_head(bench, "Training step")
    print_table(
        rows,
        {row.name: of[kind, 1] for row in rows for kind in kinds if row.name.startswith(kind)},
        {ranks: of[PYTHON, ranks] for ranks in {1, many}},
        by_hand,
    )
    print("\ntime / by hand: with the same buckets")
    return rows


def table(bench, configurations, together, references):
    many, took = bench.many, 0
    single, python_n = bench.start((HOLDFAST, "holdfast", 1, bench.holdfast), (PYTHON, "python", many, {}))
    once = [
        (PYTHON, "python", 1, {}),
        (f"{PYTHON}, bf16 hook, 100 MB", "python", many, {"compress": "bf16", "bucket_mb": 100}),
    ]
    ours = [(c.name, "holdfast", many, {**bench.holdfast, **c.settings}, c.environment) for c in configurations]
    wanted, measured = once + ours if references else ours, []
    for first in range(0, len(wanted), together):
        part, begin = wanted[first : first + together], time.monotonic()
        if not bench.has_time_for(took, ", ".join(name for name, *_ in wanted[first:])):
            break
        rows = bench.start(*part)
        bench.measure([single, python_n, *rows], bench.rounds)
        bench.end(rows)
        measured += rows
        took = time.monotonic() - begin
    print_head(bench, f"Configurations on {many} GPUs")
    python_1 = next((row for row in measured if (row.name, row.ranks) == (PYTHON, 1)), None)
    singles = {row.name: python_1 if row.name.startswith(PYTHON) else single for row in [python_n, *measured]}
    rows = [single, python_n, *measured]
    print_table(rows, singles, {1: python_1, many: python_n}, {})
    print("\nWhat they set")
    for c in [c for c in configurations if c.name in {row.name for row in measured}]:
        words = [f"{name}={value}" for name, value in {**c.settings, **c.environment}.items()]
        print(f"  {c.name:34} {' '.join(words) or 'nothing'}")
    return rows


def breakdown(bench, configuration):
    many, mark = bench.many, {"mark_last_gradient": 1}
    ours = {**bench.holdfast, **configuration.settings, **mark}
    wanted = [(HOLDFAST, "holdfast", 1, ours), (BY_HAND, "plain", 1, mark), (PYTHON, "python", 1, mark)]
    if many > 1:
        environment = configuration.environment
        sizes = {name: size for name, size in ours.items() if name in ("bucket_mb", "first_bucket_mb")}
        wanted += [
            (HOLDFAST, "holdfast", many, ours, environment),
            (BY_HAND, "plain", many, {**sizes, **mark}, environment),
            (PYTHON, "python", many, mark, environment),
        ]
    rows = bench.start(*wanted)
    bench.measure(rows, bench.rounds)
    alone = None
    by_hand = rows[-2]
    if many > 1 and not by_hand.failure:
        with bench.failing(by_hand):
            alone = by_hand.group.ask("exchange")[0]
    if many > 1 and not by_hand.failure:  # must be last: the ranks' parameters diverge
        local = Row(f"{BY_HAND}, not exchanging", by_hand.group, "local")
        bench.measure([local], bench.rounds)
        rows.append(local)
    print_head(bench, f"Where the time goes, Holdfast {configuration.name}")
    parts = ("step", "forward", "backward", "tail", "update", "host")
    print(f"{'medians in ms':34} {'GPUs':>4} " + "".join(f"{part:>10}" for part in parts) + f"{'between':>10}")
    medians = {}
    for row in rows:
        if row.failure or not row.turns:
            print(f"{row.name:34} {row.ranks:4}  failed: {row.failure}")
            continue
        mine = {part: row.median(part) for part in parts if part != "host"}
        mine["host"] = statistics.median(answer["times"]["host"] for answer in row.turns.values())
        mine["between"] = mine["step"] - mine["forward"] - mine["backward"] - mine["update"]
        medians[row.name, row.ranks] = mine
        print(f"{row.name:34} {row.ranks:4} " + "".join(f"{mine[part]:10.2f}" for part in (*parts, "between")))
    print(
        "\ntail: of backward, after the last gradient was computed, so the wait for the exchange; host: until the"
        "\nstep's work was issued, less than a step where the device is never kept waiting; between: from update to forward"
    )
    for name in (HOLDFAST, BY_HAND, PYTHON) if many > 1 else ():
        if (name, 1) not in medians or (name, many) not in medians:
            continue
        one, n = medians[name, 1], medians[name, many]
        more = {part: n[part] - one[part] for part in n}
        beside = more["backward"] - more["tail"]
        print(
            f"{name}, {many} GPUs against 1: {more['step']:+.2f} ms a step: forward {more['forward']:+.2f}, backward "
            f"beside the exchange {beside:+.2f}, waiting for it {more['tail']:+.2f}, update {more['update']:+.2f}, "
            f"between {more['between']:+.2f}"
        )
    if alone:
        print(f"\nAlone on the device, {alone['bytes'] / 1e9:.2f} GB of gradients in {alone['buckets']} buckets:")
        for part in alone["parts"]:
            print(f"  {part['part']:46} {part['ms']:8.2f} ms")
    return rows


def described(program):
    try:
        ended = subprocess.run([program, "describe"], capture_output=True, text=True, timeout=120)
    except OSError as error:
        sys.exit(f"cannot start {program}: {error.strerror}; give the folder of the built programs, as in build/bin")
    for line in ended.stdout.splitlines():
        if line.startswith("bench "):
            return json.loads(line[len("bench ") :])
    sys.exit(f"{program} describe said nothing:\n{ended.stdout}{ended.stderr}")


def require_gpus(options, facts):
    there = len(facts["gpus"]) if facts["libtorch_sees_gpu"] else 0
    if options.small:
        options.gpus = options.gpus or 2
        return
    if there == 0:
        sys.exit("this machine has no GPU that LibTorch can use; --small tries the program on the CPU")
    if options.gpus is None:
        options.gpus = max(n for n in (1, 2, 4, 8) if n <= there)
    if options.gpus > there:
        sys.exit(f"--gpus {options.gpus} asks for more GPUs than there are here: {there} ({', '.join(facts['gpus'])})")
    if options.gpus > 1 and not facts["nccl"]:
        sys.exit("encoder_bench was built without NCCL: build it where nccl.h and a CUDA toolkit are, or say --gpus 1")
    if options.gpus == 1:
        print("one GPU: scaling is not measured", file=sys.stderr)


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(dict(word.split("=", 1) for word in sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", nargs="?", default="build/bin", help="the folder of encoder_bench")
    parser.add_argument("--gpus", type=int, help="as many as there are, of 1, 2, 4 and 8, if not said")
    parser.add_argument("--table", action="store_true", help="Holdfast in many configurations")
    parser.add_argument("--breakdown", action="store_true", help="forward, backward, update, and the exchange alone")
    parser.add_argument("--small", action="store_true", help="a tiny model on the CPU, to try the program")
    parser.add_argument("--list", action="store_true", help="print the configurations")
    parser.add_argument(
        "--only", nargs="+", metavar="CONFIGURATION", help="of --table: these; of --breakdown: the first of these"
    )
    parser.add_argument("--rounds", type=int, help="4; of --table and --breakdown 2")
    parser.add_argument("--steps", type=int, help="timed in a round; 50; of --table 30")
    parser.add_argument("--warmup", type=int, help="steps of a round before them; 10; of --table 5")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="leave out what would take longer, and say so")
    parser.add_argument(
        "--together", type=int, default=6, help="configurations that are in memory at once, about 19 GB each, beside two "
        "references of Holdfast on one GPU and Python on N"
    )
    parser.add_argument("--no-references", action="store_true", help="--table without Python's other variants")
    parser.add_argument(
        "--holdfast", nargs="+", default=[], metavar="NAME=VALUE", help="Ddp's options: bucket_mb first_bucket_mb "
        "compress=none|bf16|fp16 find_unused=0|1"
    )
    parser.add_argument("--env", nargs="+", default=[], metavar="NAME=VALUE", help="variables for all processes")
    parser.add_argument("--json", help="a file for all that was measured")
    options = parser.parse_args()
    if options.list:
        for number, c in enumerate(CONFIGURATIONS):
            print(f"{number:3} {c.name:34}", *(f"{n}={v}" for n, v in {**c.settings, **c.environment}.items()))
        return
    defaults = (2, 30, 5) if options.table else (2, 50, 10) if options.breakdown else (4, 50, 10)
    if options.small:
        defaults = (2, 5, 2)
    for name, value in zip(("rounds", "steps", "warmup"), defaults):
        if getattr(options, name) is None:
            setattr(options, name, value)
    facts = described(os.path.join(options.bin, "encoder_bench"))
    require_gpus(options, facts)
    configurations = chosen(options.only)
    bench = Bench(options, facts)
    try:
        if options.table:
            rows = table(bench, configurations, options.together, not options.no_references)
        elif options.breakdown:
            rows = breakdown(bench, configurations[0])
        else:
            rows = compare(bench)
        save(options.json, rows)
    finally:
        bench.end()
        shutil.rmtree(bench.folder, ignore_errors=True)
    bench.say("done")
    if any(row.failure for row in rows):
        sys.exit("not all variants could be measured")


if __name__ == "__main__":
    main()
