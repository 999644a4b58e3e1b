# Starts bin/phases, which says in which phase of its training it is, and stops it there.
import os
import re
import subprocess
import threading
import time


class Phases:
    """bin/phases with its lines, as they come."""

    def __init__(self, programs, home, *options, ranks=1, environment=None):
        command = [os.path.join(programs, "phases"), "--holdfast.dir", home, "--holdfast.threads", "1", *options]
        if ranks > 1:
            command = [os.path.join(programs, "holdfast"), "launch", "--nproc", str(ranks), "--", *command]
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})})
        self.out, self.said = [], []  # (time, line)
        self.readers = [threading.Thread(target=self.read, args=(stream, into), daemon=True)
                        for stream, into in ((self.process.stdout, self.out), (self.process.stderr, self.said))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(stream, into):
        for line in stream:
            into.append((time.monotonic(), line.rstrip()))

    def text(self):
        return "\n".join(line for _, line in self.said)

    def wait(self, pattern, lines=None, times=1, seconds=60):
        """Until a line has come `times`; returns when the last of them came."""
        lines = self.out if lines is None else lines
        deadline = time.monotonic() + seconds
        while True:
            found = [at for at, line in list(lines) if re.search(pattern, line)]
            if len(found) >= times:
                return found[times - 1]
            assert self.process.poll() is None, f"ended without a line with {pattern}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no line with {pattern}:\n{self.text()}"
            time.sleep(0.002)

    def end(self, seconds=60):
        """The exit code, and when the process ended."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still runs after {seconds} s:\n{self.text()}") from None
        at = time.monotonic()
        for reader in self.readers:
            reader.join()
        return code, at

    def durable(self):
        """When the last version was acknowledged; None without one."""
        found = [at for at, line in self.said if "saved version" in line]
        return found[-1] if found else None
