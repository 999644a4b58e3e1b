# A mirror on a real FUSE mount, as Google Drive is on Colab: files there are only created and removed; a mount that hangs
# or dies does not stop training and is reported once; a drive that is not mounted is not taken for an empty one.
# bindfs plays the drive.
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from drive import Drive, is_possible

gan = os.path.join(sys.argv[1], "gan")
holdfast = os.path.join(sys.argv[1], "holdfast")


class Program:
    """gan with its lines, as they come."""

    def __init__(self, home, mirror):
        self.lines = []
        self.process = subprocess.Popen([gan, "--holdfast.dir", home, "--holdfast.mirror", mirror, "--holdfast.every", "10",
                                         "--holdfast.threads", "1"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def count(self, pattern, since=0):
        return sum(1 for line in self.lines[since:] if re.search(pattern, line))

    def wait(self, pattern, since=0, times=1, seconds=60):
        deadline = time.monotonic() + seconds
        while self.count(pattern, since) < times:
            assert self.process.poll() is None, "\n".join(self.lines)
            assert time.monotonic() < deadline, f"no line with {pattern}:\n" + "\n".join(self.lines)
            time.sleep(0.05)
        return len(self.lines)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self):
        code = self.process.wait(timeout=120)
        self.reader.join()
        return code


def newest(run):
    return max(name for name in os.listdir(os.path.join(run, "journal")) if name.endswith(".save.json"))


def run_tests(folder, drive):
    home = os.path.join(folder, "home")
    mirror = os.path.join(drive.mount_point, "MyDrive", "holdfast")

    program = Program(home, mirror)
    program.wait("is also in .*process-safe")
    drive.hang(True)
    here = program.wait("saved version", len(program.lines), times=1)
    program.wait("saved version", here, times=3)  # training goes on
    drive.hang(False)
    program.wait(r"is also in .*were? not copied, because", here)

    drive.kill()
    here = program.wait("fails: ", here)
    program.wait("saved version", here, times=3)
    assert program.count("fails: ") == 1, program.lines
    drive.unmount()
    assert drive.mount()
    assert program.stop() == 75, program.lines
    assert program.count("works again") == 1, program.lines
    run = os.path.join(drive.real, "MyDrive", "holdfast", os.listdir(home)[0])
    assert newest(run) == newest(os.path.join(home, os.listdir(home)[0])), program.lines
    subprocess.run([holdfast, "verify", run], check=True, stdout=subprocess.DEVNULL)

    # Another machine: nothing at home, and the drive is not mounted yet.
    shutil.rmtree(home)
    drive.unmount()
    program = Program(home, mirror)
    assert program.end() == 1, program.lines
    assert program.count("not every place can be read") == 1, program.lines
    assert drive.mount()
    program = Program(home, mirror)
    program.wait(f"resumed version .*, from {re.escape(mirror)}")
    program.wait("saved version")
    assert program.stop() == 75, program.lines


if not is_possible():
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    drive = Drive(folder)
    assert drive.mount()
    try:
        run_tests(folder, drive)
    finally:
        drive.unmount()
print("mounted_drive: hung, died, came again, resumed")
