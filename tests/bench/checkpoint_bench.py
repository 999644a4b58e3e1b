"""Measures saves and loads of one state by Holdfast and by other common tools, in turn, in one run.

  checkpoint_bench.py build/bin/checkpoint_bench [--folder DIR] [--rounds 9] [--tensors 64] [--mib 16]

A save ends when the tool returns. Saves of torch.save and safetensors are followed by an fsync;
torch.distributed.checkpoint makes its own. accelerate makes none, so its saves are not durable. A load ends when every
byte is in the module's own parameters. A raw O_DIRECT write of the same number of bytes accompanies each save, because
the disk's speed varies.
Prints medians, spreads, and the ratio to Holdfast round by round.
"""

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")


class Module(torch.nn.Module):
    def __init__(self, tensors, mib):
        super().__init__()
        for i in range(tensors):
            self.register_parameter(f"p{i}", torch.nn.Parameter(torch.randn(mib * 256, 1024)))


def sync(path):
    for folder in (path, os.path.dirname(path)):
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def drop_cache(path):
    files = [path] if os.path.isfile(path) else [os.path.join(d, f) for d, _, names in os.walk(path) for f in names]
    for name in files:
        fd = os.open(name, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class TorchSave:
    name = "torch.save + fsync"

    def __init__(self, module, path):
        self.module, self.path = module, path

    def save(self):
        torch.save(self.module.state_dict(), self.path)
        sync(self.path)

    def load(self):
        self.module.load_state_dict(torch.load(self.path, mmap=True, weights_only=True))


class Safetensors(TorchSave):
    name = "safetensors + fsync"

    def save(self):
        save_file(self.module.state_dict(), self.path)
        sync(self.path)

    def load(self):
        self.module.load_state_dict(load_file(self.path))


class Dcp(TorchSave):
    name = "torch.distributed.checkpoint"

    def save(self):
        dcp.save(self.module.state_dict(), checkpoint_id=self.path, no_dist=True)

    def load(self):
        dcp.load(self.module.state_dict(), checkpoint_id=self.path, no_dist=True)


class Accelerate(TorchSave):
    name = "accelerate.save_state"

    def __init__(self, module, path):
        super().__init__(module, path)
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=True)
        self.module = self.accelerator.prepare(module)

    def save(self):
        self.accelerator.save_state(self.path)

    def load(self):
        self.accelerator.load_state(self.path)


class Holdfast:
    def __init__(self, program, folder, tensors, mib):
        self.process = subprocess.Popen(
            [program, folder, str(tensors), str(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        seconds = float(self.process.stdout.readline())
        if seconds < 0:
            raise SystemExit(f"checkpoint_bench failed at {command}")
        return seconds


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def report(title, rows, gigabytes):
    print(f"\n{title}")
    print(f"  {'':30} {'median s':>9} {'min':>7} {'max':>7} {'GB/s':>6}   time against Holdfast, median (min to max)")
    ours = rows["Holdfast"]
    for name, times in sorted(rows.items(), key=lambda row: statistics.median(row[1])):
        ratios = [peer / own for peer, own in zip(times, ours)]
        median = statistics.median(times)
        print(
            f"  {name:30} {median:9.3f} {min(times):7.3f} {max(times):7.3f} {gigabytes / median:6.2f}   "
            f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tensors", type=int, default=64)
    parser.add_argument("--mib", type=int, default=16, help="MiB in each tensor")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="holdfast-bench-", dir=options.folder)
    gigabytes = options.tensors * options.mib * 2**20 / 1e9
    try:
        holdfast = Holdfast(options.program, folder, options.tensors, options.mib)
        module = Module(options.tensors, options.mib)
        expected = [float(p.detach().sum(dtype=torch.float64)) for p in module.parameters()]
        peers = [kind(module, os.path.join(folder, kind.__name__)) for kind in (TorchSave, Safetensors, Dcp, Accelerate)]
        saves, raw, cold, warm = {}, {}, {}, {}
        for round_number in range(options.rounds + 1):
            measured = round_number > 0  # the first round warms up

            def note(table, name, seconds):
                if measured:
                    table.setdefault(name, []).append(seconds)

            note(raw, "Holdfast", holdfast("raw"))
            note(saves, "Holdfast", holdfast("save"))
            for loads, drop in ((cold, True), (warm, False)):
                for command, name in (("load", "Holdfast"), ("load-unchecked", "Holdfast, digests not checked")):
                    if drop:
                        holdfast("drop")
                    holdfast("scramble")
                    note(loads, name, holdfast(command))
                    holdfast("check")
            for peer in peers:
                remove(peer.path)
                os.sync()
                note(raw, peer.name, holdfast("raw"))
                note(saves, peer.name, timed(peer.save))
                for loads, drop in ((cold, True), (warm, False)):
                    if drop:
                        drop_cache(peer.path)
                    with torch.no_grad():
                        for p in module.parameters():
                            p.fill_(0.5)
                    note(loads, peer.name, timed(peer.load))
                    if [float(p.detach().sum(dtype=torch.float64)) for p in module.parameters()] != expected:
                        raise SystemExit(f"{peer.name} did not restore the state")
                remove(peer.path)
                gc.collect()
        holdfast.process.stdin.close()
        holdfast.process.wait()
        print(f"{gigabytes:.2f} GB in {options.tensors} tensors, {options.rounds} rounds, torch {torch.__version__}")
        report("save", saves, gigabytes)
        report("load, the files not in the page cache", cold, gigabytes)
        report("load, the files in the page cache", warm, gigabytes)
        everything = [seconds for times in raw.values() for seconds in times]
        print(
            f"\nraw O_DIRECT write beside each: median {statistics.median(everything):.3f} s, "
            f"{min(everything):.3f} to {max(everything):.3f}"
        )
        for name, times in saves.items():
            ratios = [seconds / beside for seconds, beside in zip(times, raw[name])]
            print(f"  {name:30} save / raw beside it: {statistics.median(ratios):.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
