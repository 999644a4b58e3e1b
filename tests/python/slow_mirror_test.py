# A machine goes away 30 s after its notice (kubernetes' SIGTERM), and the mirror is slow: the version is durable at home
# within five seconds, and in the mirror if its speed allows that; else the mirror is given up before the machine goes.
import os
import signal
import subprocess
import sys
import tempfile
import time

from drive import Drive, is_possible
from phases import Phases

programs = sys.argv[1]
NOTICE = 30


def stop_with_mirror(folder, megabytes, bytes_per_second):
    """How long the program took after the signal, and whether the mirror has the newest version."""
    os.mkdir(folder)
    drive = Drive(folder, bytes_per_second)
    assert drive.mount()
    try:
        home = os.path.join(folder, "home")
        mirror = os.path.join(drive.mount_point, "MyDrive", "runs")
        run = Phases(programs, home, "--holdfast.platform", "kubernetes", "--holdfast.mirror", mirror,
                     "--megabytes", str(megabytes))
        run.wait("^forward", times=3)
        run.process.send_signal(signal.SIGTERM)
        at = time.monotonic()
        code, ended = run.end(seconds=120)
        assert code == 75, run.text()
        assert run.durable() - at < 5, run.text()
        assert ended - at < NOTICE, (ended - at, run.text())
        there = os.path.join(drive.real, "MyDrive", "runs", "phases")
        manifests = [name for name in os.listdir(os.path.join(there, "journal")) if name.endswith(".save.json")]
        subprocess.run([os.path.join(programs, "holdfast"), "verify", os.path.join(home, "phases")], check=True,
                       stdout=subprocess.DEVNULL)
        if manifests:
            subprocess.run([os.path.join(programs, "holdfast"), "verify", there], check=True, stdout=subprocess.DEVNULL)
        return ended - at, bool(manifests), run
    finally:
        drive.unmount()


if not is_possible():
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    took, arrived, run = stop_with_mirror(os.path.join(folder, "slow"), 48, 6 * 1024 * 1024)
    assert arrived and "is also in" in run.text(), run.text()
    print(f"slow mirror: everything durable {took:.1f} s after the signal, of {NOTICE} s")
    assert took > 5, took  # otherwise the mirror was not slow
    took, arrived, run = stop_with_mirror(os.path.join(folder, "too slow"), 48, 1024 * 1024)
    assert not arrived and "lacks version" in run.text(), run.text()
    print(f"mirror that is too slow: given up, ended {took:.1f} s after the signal, of {NOTICE} s")
