"""Hosts for a test on one machine: network namespaces connected by a cable. Each has its own name and, for processes
started on it, its own process numbers.

Everything is in namespaces of this test alone, so the kernel removes hosts, cable and processes when the test ends for
whatever reason. A test that calls enter() in its first lines runs as root in them. Without root's rights outside, it
gets them by a user namespace if the system allows that; otherwise it is skipped.
"""

import os
import shutil
import subprocess
import sys

INSIDE = "HOLDFAST_TEST_HAS_NAMESPACES"


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def enter():
    if os.environ.get(INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # where `ip netns` keeps its names
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    for tool, package in {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount",
                          "hostname": "hostname"}.items():
        if not shutil.which(tool):
            skip(f"the program {tool} (package {package}) is not installed")
    unshare = ["unshare", *(["--map-root-user"] if os.geteuid() != 0 else []),
               "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    what_it_takes = ("mount -t tmpfs tmpfs /run && ip netns add try && "
                     "ip link add eth0 type veth peer name eth0 netns try && unshare --uts hostname try")
    tried = subprocess.run([*unshare, "sh", "-c", what_it_takes], capture_output=True, text=True)
    if tried.returncode != 0:
        skip(f"this user cannot make namespaces here: {tried.stderr.strip()}")
    # Variables of the launcher that started this test must not reach the ranks that the test starts.
    of_launchers = ("OMPI_", "SLURM_", "RANK", "WORLD", "LOCAL_", "MASTER_", "HOLDFAST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(of_launchers)}
    os.execvpe(unshare[0], [*unshare, sys.executable, *sys.argv], {**environment, INSIDE: "1"})


def name(folder, *hosts):
    """After this call every host finds the others by name."""
    file = os.path.join(folder, "hosts")
    with open(file, "w", encoding="utf-8") as lines:
        lines.writelines(f"{host.address} {host.name}\n" for host in hosts)
        lines.write("127.0.0.1 localhost\n")
    subprocess.run(["mount", "--bind", file, "/etc/hosts"], check=True)


def connect(*hosts):
    """Connects two hosts by a cable."""
    first, second = (host.name for host in hosts)
    subprocess.run(["ip", "link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second],
                   check=True)
    for host in hosts:
        subprocess.run(["ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0"], check=True)
        host.link("up")


class Host:
    def __init__(self, name, address):
        self.name, self.address = name, address
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)

    def link(self, state):
        """Sets the link `up` or `down`. While it is down, packets are lost without an error."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "eth0", state], check=True)

    def words(self, report_left=True):
        """Put before a command, these words run it on this host, in a new process namespace.
        Killing the process that they start kills all of them. At its end it prints which processes are left; 1 is the
        shell."""
        script = 'hostname "$0"; "$@"; code=$?; '
        if report_left:
            script += "cd /proc; echo processes left on $0: [0-9]*; "
        return ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--uts", "--pid", "--fork", "--kill-child",
                "--mount-proc", "sh", "-c", script + "exit $code", self.name]


def descendants(pid, program):
    """The descendants of process `pid` that run a program of this name."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as children:
                for child in map(int, children.read().split()):
                    if os.path.basename(os.readlink(f"/proc/{child}/exe")) == program:
                        found.append(child)
                    found += descendants(child, program)
    except OSError:
        pass  # it ended during the search
    return found
