"""Four ranks on two hosts, which are network namespaces here: they find each other, compute what four ranks on one host
compute, and when a host, its launcher or the network is lost, the ranks on the other report it and end; then the same
commands resume. A network that is down for less than three seconds ends nothing."""
# run alone

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

import hosts

hosts.enter()

from chain import Chain  # noqa: E402

programs = os.path.abspath(sys.argv[1])
torchrun = os.path.join(os.path.dirname(sys.executable), "torchrun")
ranks = 4
steps_an_epoch, epochs = 4, 40  # those of the program with four ranks
environment = {**os.environ, "OMP_NUM_THREADS": "1"}
a, b = hosts.Host("node-a", "10.77.0.1"), hosts.Host("node-b", "10.77.0.2")
hosts.connect(a, b)
both = (a, b)
port = 29500

silence = 3  # seconds without heartbeats after which a loss that closes no connection is detected
to_stop = 5  # seconds from the detection to the end of every rank


def check(fine, what, *texts):
    if not fine:
        print("FAILED:", what, *texts, sep="\n")
        sys.exit(1)


def launch(host, nodes=2):
    several = ["--nnodes", str(nodes), "--node-rank", str(both.index(host)), "--rendezvous", f"{a.address}:{port}"]
    return [*host.words(), f"{programs}/holdfast", "launch", *(several if nodes > 1 else []),
            "--nproc", str(2 if nodes > 1 else ranks), "--"]


def torch_launch(host):
    return [*host.words(), torchrun, "--nnodes", "2", "--node-rank", str(both.index(host)), "--master-addr", a.address,
            "--master-port", str(port), "--nproc-per-node", "2", "--no-python"]


def left_behind(text):
    """Whether processes were left on a host when its command ended, other than the first one."""
    return re.findall(r"processes left on node-[ab]: 1(.*)$", text, re.M) != [""]


# The ranks find each other.
for name, words in {"holdfast launch": launch, "torchrun": torch_launch}.items():
    port += 1
    started = [subprocess.Popen([*words(host), f"{programs}/ranks"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, env=environment) for host in both]
    texts = [one.communicate(timeout=120)[0] for one in started]
    for node, (one, text) in enumerate(zip(started, texts)):
        lines = sorted(re.findall(r"rank (\d) of 4, local (\d), by (.*): sum 10$", text, re.M))
        expected = [(str(2 * node + local), str(local), name) for local in range(2)]
        check(one.returncode == 0 and lines == expected and not left_behind(text), f"{name} on node {node}", *texts)
    print(f"{name}: four ranks on two hosts agreed")


class Run:
    """The training program on both hosts, each with two ranks; further hosts of `nodes` never start."""

    def __init__(self, folder, run, every, nodes=2):
        global port
        port += 1  # connections of the last start may still hold the old port, which this test does not cover
        self.chains = [Chain(launch(host, nodes), programs, folder, run, epochs * 8, every, env=environment) for host in both]

    def wait_for_steps(self, count):
        deadline = time.monotonic() + 60
        while self.steps() < count and time.monotonic() < deadline:
            time.sleep(0.005)
        check(self.steps() >= count, f"it does not reach step {count}", *map(self.text, both))

    def wait_for_connections(self):
        """Waits until both ranks of node-b have found rank 0."""
        deadline = time.monotonic() + 60
        sockets = ["nsenter", f"--net=/run/netns/{b.name}", "ss", "-Htn", "state", "established", "dport", "=", f":{port}"]
        while subprocess.check_output(sockets, text=True).count("\n") < 2:
            check(time.monotonic() < deadline, "node-b does not find rank 0")
            time.sleep(0.05)
        time.sleep(0.5)

    def steps(self):
        return max((step for chain in self.chains for step, _ in list(chain.records)), default=0)

    def processes(self, host, program="chain"):
        return hosts.descendants(self.chains[both.index(host)].process.pid, program)

    def wait(self):
        return [chain.wait() for chain in self.chains]

    def text(self, host):
        return self.chains[both.index(host)].text


with tempfile.TemporaryDirectory() as folder:
    environment["HOLDFAST_SILENCE"] = f"{silence}s"
    environment["TMPDIR"] = folder  # for files that a launcher leaves when it is killed with its whole host
    alone = Chain(launch(a, nodes=1), programs, folder, "one-host", epochs * 8, "never", env=environment)
    check(alone.wait() == 0 and len(alone.records) == epochs * steps_an_epoch * ranks, "four ranks on one host", alone.text)
    begun = time.monotonic()
    calm = Run(folder, "two-hosts", "never")
    check(calm.wait() == [0, 0], "four ranks on two hosts", calm.text(a), calm.text(b))
    together = {**calm.chains[0].records, **calm.chains[1].records}
    differing = sum(together.get(at) != record for at, record in alone.records.items())
    check(differing == 0 and together.keys() == alone.records.keys(),
          f"{differing} of {len(alone.records)} records differ between one host and two")
    print(f"two hosts computed what one does: ranks={ranks} records={len(together)} differing=0 "
          f"in {time.monotonic() - begun:.1f} s")

    # The wait for a host that never starts ends by a signal or when rank 0 ends.
    run = Run(folder, "never", "1", nodes=3)
    run.wait_for_connections()
    asked_at = time.monotonic()
    for host in both:
        for launcher in run.processes(host, "holdfast"):
            os.kill(launcher, signal.SIGTERM)
    check(run.wait() == [75, 75] and "received a stop request before all ranks had met" in run.text(b),
          "SIGTERM before all have arrived", *map(run.text, both))
    print(f"asked to stop before all had arrived: exit codes [75, 75] after {time.monotonic() - asked_at:.2f} s")
    run = Run(folder, "never", "1", nodes=3)
    run.wait_for_connections()
    run.chains[0].process.kill()
    lost_at = time.monotonic()
    codes = run.wait()
    check(codes[1] == 1 and len(re.findall(r"rank 0 at 10.77.0.1:\d+ ended while rank [23] waited", run.text(b))) >= 2,
          f"rank 0 ended before all had arrived: {codes}", run.text(b))
    print(f"rank 0's host was lost before all had arrived: node-b ended after {time.monotonic() - lost_at:.2f} s")

    # A network that is down for less than the silence limit.
    run = Run(folder, "stalled", "1")
    for turn in range(3):
        run.wait_for_steps(10 * (turn + 1))
        b.link("down")
        time.sleep(1.2)
        before = run.steps()
        b.link("up")
    codes = run.wait()
    check(codes == [0, 0] and before < epochs * steps_an_epoch, f"the network stalls: {codes}", *map(run.text, both))
    check({**run.chains[0].records, **run.chains[1].records} == alone.records, "the stalled run computed something else")
    print("the network was away for 1.2 s three times: nothing ended, differing=0")

    def lose(host):
        """Kills every process of the host; its kernel closes their connections."""
        def act(run):
            run.chains[both.index(host)].process.kill()
        return act

    def kill_launcher(run):
        os.kill(run.processes(b, "holdfast")[0], signal.SIGKILL)

    # Each loss, and the hosts that remain.
    losses = {
        "node-b is lost": (lose(b), [a]),
        "node-a, with rank 0, is lost": (lose(a), [b]),
        "the network is down": (lambda run: b.link("down"), [a, b]),
        "node-b's launcher is killed": (kill_launcher, [a]),
    }
    seen = {}
    done = 0
    for what, (act, stay) in losses.items():
        run = Run(folder, "disturbed", "1")
        run.wait_for_steps(done + 20)
        watched = {os.pidfd_open(pid): host for host in stay for pid in run.processes(host)}
        check(len(watched) == 2 * len(stay), f"before {what}: {len(watched)} ranks")
        ended = []
        poll = select.poll()
        for process in watched:
            poll.register(process, select.POLLIN)
        act(run)
        lost_at = time.monotonic()
        while len(ended) < len(watched) and time.monotonic() - lost_at < 40:
            for process, _ in poll.poll(100):
                poll.unregister(process)
                ended.append(time.monotonic() - lost_at)
        codes = run.wait()
        all_over = time.monotonic() - lost_at
        b.link("up")
        texts = [run.text(host) for host in both]
        check(len(ended) == len(watched) and ended[-1] < silence + to_stop,
              f"{what}: ranks ended after {ended} s", *texts)
        for host in stay:
            other = both[1 - both.index(host)]
            said = re.findall(rf"(rank \d \(pid \d+ on {other.name}\) (?:is gone|has sent no heartbeat).* (?:in|after) .* at .*)",
                              run.text(host))
            check(len(said) >= 2, f"{what}: on {host.name} not both ranks name a rank of {other.name}", *texts)
            check(codes[both.index(host)] != 0 and not left_behind(run.text(host)),
                  f"{what}: codes {codes}, or processes left", *texts)
            print(f"{what}: {host.name} reports: {said[0]}")
        print(f"{what}: ranks ended after {', '.join(f'{seconds:.2f}' for seconds in ended)} s, all over after "
              f"{all_over:.2f} s, exit codes {codes}")
        check(done == 0 or "resumed version" in run.text(a), f"before {what} it did not resume", *texts)
        for chain in run.chains:
            seen.update(chain.records)
        done = run.steps()
    last = Run(folder, "disturbed", "1")
    check(last.wait() == [0, 0] and "resumed version" in last.text(a), "the last start", *map(last.text, both))
    for chain in last.chains:
        seen.update(chain.records)
    check(seen == alone.records, "the disturbed run computed something else")
    diff = subprocess.run([f"{programs}/holdfast", "diff", f"{folder}/one-host", f"{folder}/disturbed"],
                          capture_output=True, text=True)
    check(diff.returncode == 0, diff.stdout + diff.stderr)
    print(f"disturbed: losses={len(losses)} records={len(seen)} differing=0")
