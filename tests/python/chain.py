"""Starts the training program chain (tests/runtime/session/chain_program.cc) and receives every rank's results of each step."""

import os
import struct
import subprocess
import threading

RECORD = struct.Struct("@QiQQQ")  # chain::Record of chain.h: step, rank, the loss's bits, digest of the batch


def command(programs, folder, run, steps, every, kill="", trace=-1, precision="fp32", device="cpu", kill_rank=-1):
    """The command line that starts the program."""
    return [f"{programs}/chain", folder, run, "AdamW", "0", str(steps), every, kill, str(trace), precision, device, str(kill_rank)]


class Chain:
    """One start of the program by `launch`, the launcher's words before those of the program."""

    def __init__(self, launch, programs, folder, run, steps, every, precision="fp32", **options):
        ours, theirs = os.pipe()
        words = command(programs, folder, run, steps, every, trace=theirs, precision=precision)
        # A new session, as with a batch system.
        self.process = subprocess.Popen([*launch, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        pass_fds=[theirs], start_new_session=True, **options)
        os.close(theirs)
        self.records = {}  # by step and rank: what was computed
        self.torn = 0
        self.text = ""
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.hear, args=[ours], daemon=True),
                        threading.Thread(target=self.read, daemon=True)]
        for thread in self.threads:
            thread.start()

    def hear(self, pipe):
        with open(pipe, "rb", buffering=0) as records:
            while record := records.read(RECORD.size):
                with self.changed:
                    self.torn += len(record) != RECORD.size
                    step, rank, *computed = RECORD.unpack(record)
                    self.records[step, rank] = computed
                    self.changed.notify_all()

    def read(self):
        self.text = self.process.stdout.read()

    def wait_for_records(self, count, seconds=60):
        """Whether `count` records arrived before the program ended. All ranks' records are counted."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.records) >= count or self.process.poll() is not None, seconds)
            return len(self.records) >= count

    def wait(self, seconds=120):
        """The launcher's exit code, after all writers have ended."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for thread in self.threads:
            thread.join(seconds)
        return code
