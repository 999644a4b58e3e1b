# holdfast doctor returns although the folder that it tries hangs. A stopped process plays the hanging folder: the one
# that doctor starts to try it.
import os
import signal
import subprocess
import sys
import tempfile
import time

holdfast = os.path.join(sys.argv[1], "holdfast")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


with tempfile.TemporaryDirectory() as folder:
    doctor = subprocess.Popen([holdfast, "doctor", folder, "--size", "1024", "--patience", "2"], stdout=subprocess.PIPE,
                              text=True)
    deadline = time.monotonic() + 60
    while not children(doctor.pid):
        assert doctor.poll() is None and time.monotonic() < deadline, "no process tried the folder"
    child = children(doctor.pid)[0]
    os.kill(child, signal.SIGSTOP)
    begin = time.monotonic()
    output, _ = doctor.communicate(timeout=60)
    took = time.monotonic() - begin
    assert doctor.returncode == 1, (doctor.returncode, output)
    assert f"{folder} did not answer within 2 s" in output, output
    assert "mount it again" in output, output
    assert took < 20, took
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}"), "the process that hung is left behind"
print(f"doctor_of_a_hanging_folder: seconds={took:.1f}")
