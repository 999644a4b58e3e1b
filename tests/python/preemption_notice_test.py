# The clouds' preemption notices: a run that asks for them stops with a version before the machine goes away, whichever
# cloud announces it, and never stops for another reason. The metadata service listens on its real address in a network
# of its own, where that is allowed; else on 127.0.0.1, and Azure's, whose address is fixed, is left out.
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from phases import Phases

programs = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
ADDRESS = "169.254.169.254"


class Service:
    def __init__(self, address, port):
        self.process = subprocess.Popen([sys.executable, os.path.join(here, "metadata_server.py"), address, str(port)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def in_own_network():
    """Starts this test again in a network where the services' address may be used; returns if that is not allowed."""
    for unshare in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        ready = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo"
        if subprocess.run([*unshare, "sh", "-c", ready], stderr=subprocess.DEVNULL).returncode == 0:
            again = [*unshare, "sh", "-c", ready + ' && exec "$@"', "sh", sys.executable, __file__, *sys.argv[1:], "inside"]
            sys.exit(subprocess.run(again).returncode)


def stops(cloud, title, reason, real, folder, ranks=1):
    home = os.path.join(folder, f"{cloud}{ranks}")
    service = Service(ADDRESS, 80) if real else Service("127.0.0.1", 0)
    environment = {} if real else {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{service.port}",
                                   "GCE_METADATA_HOST": f"127.0.0.1:{service.port}"}
    # A proxy for everything else must not see these requests.
    environment["http_proxy"] = "http://127.0.0.1:9"
    run = Phases(programs, home, "--holdfast.notices", cloud, ranks=ranks, environment=environment)
    run.wait(f"preemption notices of {title}", run.said)
    run.wait("^forward|] forward", times=4)
    service.tell("other")
    service.tell("forget")
    time.sleep(2.5)
    service.tell("silent")
    run.wait(f"{title} cannot be asked for preemption notices", run.said, seconds=40)
    service.tell("answer")
    run.wait(f"{title} answers again", run.said, seconds=40)
    assert run.process.poll() is None and "stopped" not in run.text(), run.text()
    refused = service.tell("notice 40")["refused"]
    at = time.monotonic()
    code, ended = run.end()
    assert code == 75, (code, run.text())
    assert f"({reason}" in run.text(), run.text()
    assert run.durable() - at < 5, run.durable() - at
    assert ended - at < 10, ended - at
    assert run.text().count("cannot be asked") == 1, run.text()
    assert cloud != "ec2" or refused >= 1  # a token that is no longer valid was replaced
    service.close()
    print(f"{cloud} ranks={ranks}: durable {run.durable() - at:.2f} s after the notice, ended {ended - at:.2f} s")

    # The next start goes on, and a service that is not there does not stop it.
    run = Phases(programs, home, "--holdfast.notices", cloud, "--epochs", "1", environment=environment)
    code, _ = run.end()
    assert code == 0 and "resumed version" in run.text(), run.text()
    assert run.text().count("cannot be asked") <= 1, run.text()


def main():
    inside = "inside" in sys.argv
    if not inside:
        in_own_network()
        print("no network of its own is allowed here: Azure's service is left out")
    folder = tempfile.mkdtemp()
    stops("ec2", "EC2", "EC2 will terminate this machine at 20", inside, folder)
    stops("gce", "Compute Engine", "Compute Engine is taking this machine back", inside, folder)
    stops("gce", "Compute Engine", "Compute Engine is taking this machine back", inside, folder, ranks=2)
    if inside:
        stops("azure", "Azure", "Azure has scheduled the event Preempt for this machine, not before", inside, folder)

    wrong = Phases(programs, folder, "--holdfast.notices", "aws")
    assert wrong.end()[0] != 0 and "choose none, auto, ec2, gce or azure" in wrong.text(), wrong.text()
    shutil.rmtree(folder)


main()
