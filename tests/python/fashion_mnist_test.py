"""The example's default run reaches the accuracy that its description states."""
# label: long

import os
import re
import subprocess
import sys
import tempfile

if not os.path.exists("/usr/share/datasets/fashion-mnist"):
    print("skipped: the package dataset-fashion-mnist is not installed")
    sys.exit(77)

with tempfile.TemporaryDirectory() as runs:
    command = [os.path.join(sys.argv[1], "fashion_mnist"), "--holdfast.dir", runs]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(done.stdout)
best = re.search(r"([0-9.]+) %[^\n]*$", done.stdout.strip())
sys.exit(0 if done.returncode == 0 and best and float(best.group(1)) >= 88 else 1)
