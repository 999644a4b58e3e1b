# A mounted drive for tests.
import os
import shutil
import signal
import subprocess
import tempfile
import time


class Drive:
    """A folder that is mounted by FUSE, as Google Drive is on Colab. bindfs plays the drive."""

    def __init__(self, folder, bytes_per_second=None):
        self.real = os.path.join(folder, "server")
        self.mount_point = os.path.join(folder, "drive")
        os.mkdir(self.real)
        os.mkdir(os.path.join(self.real, "MyDrive"))
        os.mkdir(self.mount_point)
        self.options = [f"--write-rate={bytes_per_second}"] if bytes_per_second else []
        self.daemon = None

    def mount(self):
        self.daemon = subprocess.Popen(["bindfs", "-f", *self.options, self.real, self.mount_point],
                                       stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not os.path.ismount(self.mount_point):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def hang(self, hangs):
        os.kill(self.daemon.pid, signal.SIGSTOP if hangs else signal.SIGCONT)

    def kill(self):
        self.daemon.kill()
        self.daemon.wait()

    def unmount(self):
        subprocess.run(["umount", "-l", self.mount_point], check=False, stderr=subprocess.DEVNULL)
        if self.daemon.poll() is None:
            self.kill()


def is_possible():
    """Whether FUSE can be used here; prints why not."""
    if shutil.which("bindfs") is None:
        print("bindfs is not installed")
        return False
    with tempfile.TemporaryDirectory() as folder:
        drive = Drive(folder)
        if drive.mount():
            drive.unmount()
            return True
        print(f"FUSE cannot be used here: {drive.daemon.stderr.read()}")
        return False
