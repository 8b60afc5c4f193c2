"""The cases of the benchmark, run against whatever `ray` the interpreter has.

A case is written on Ray's public API only, so that Gray and Ray run the very same lines. The names are those of
`ray microbenchmark` where it has the case; the others are ours.

run.py starts this file, once a round and an engine:
    python bench/cases.py --out FILE --seconds S CASE ...
Each case leaves one line of JSON in FILE as soon as it is measured: {"case", "values"} or {"case", "error"}.
"""

import argparse
import json
import os
import sys
import time
import traceback

START = time.perf_counter()  # before ray is imported: part of what "start" measures

CASES = []  # in the order they run: what leaves a lot behind comes last
RATE, TIME, SIZE = "rate", "time", "size"  # more is better; less is better; less is better, and it is no time


class Case:
    """One case.

    Attributes:
        name: As printed.
        kind: RATE, TIME or SIZE.
        unit: Of the figure: ``tasks/s``, ``s``, ``MB``.
        must: The ratio to Ray that must be reached, or None.
        limit: The absolute figure that must not be passed, or that a RATE must reach, or None; for what is not a ratio.
        times: What one timed call counts for, in units.
        where: ``fresh``, ``session`` and ``heavy``: in a driver with a cluster of its own, one for all cases that say the
            same; ``client``: in one that is connected by ray://; ``cluster``: on a cluster by ``ray start``; ``bare``: no cluster; ``go``: a benchmark of the Go tests.
        alone: It looks at Gray's daemon, so there is nothing to compare with.
        run: The function. A rate's is called again and again; the others return their figure.
    """

    def __init__(self, run, name, kind, unit, must, limit, times, where, alone):
        self.run, self.name, self.kind, self.unit = run, name, kind, unit
        self.must, self.limit, self.times, self.where, self.alone = must, limit, times, where, alone


def case(name, unit, kind=RATE, must=None, limit=None, times=1, where="session", alone=False):
    def add(run):
        CASES.append(Case(run, name, kind, unit, must, limit, times, where, alone))
        return run

    return add


def small(ray):
    """Returns the task that most cases run: one CPU, two bytes back."""

    @ray.remote
    def small_value():
        return b"ok"

    return small_value


# --- start and end ---


@case("start: import, init, first result", "s", TIME, must=12, where="fresh")
def start(session):
    return session.started


@case("idle cluster, two warm workers: PSS", "MB", SIZE, limit=90, where="fresh")
def idle(session):
    return session.idle_pss() / 1e6


@case("shutdown", "s", TIME, must=10, where="fresh")
def shutdown(session):
    return session.stop()


@case("import ray, over a bare interpreter", "ms", TIME, limit=60, where="bare")
def import_ray(python):
    import subprocess

    def run(code):
        t = time.perf_counter()
        subprocess.run([python, "-c", code], check=True)
        return time.perf_counter() - t

    run("import ray")  # once unmeasured: writes the byte code
    bare, full = [], []
    for _ in range(7):
        bare.append(run("pass"))
        full.append(run("import ray"))
    return (sorted(full)[3] - sorted(bare)[3]) * 1e3


# --- tasks ---


@case("single client tasks sync", "tasks/s", must=8)
def tasks_sync(session):
    ray, f = session.ray, small(session.ray)
    return lambda: ray.get(f.remote())


@case("single client tasks async", "tasks/s", must=12, times=1000)
def tasks_async(session):
    ray, f = session.ray, small(session.ray)
    return lambda: ray.get([f.remote() for _ in range(1000)])


@case("generator of a task, each item got", "items/s", must=10, times=5000)
def generator_items(session):
    ray = session.ray

    @ray.remote
    def count(n):
        for i in range(n):
            yield i

    def read():
        for ref in count.remote(5000):
            ray.get(ref)

    return read


@case("single client tasks and get batch", "batches of 1,000/s", must=12)
def tasks_batch(session):
    ray, f = session.ray, small(session.ray)

    def batch():
        refs = []
        for _ in range(1000):
            refs.append(f.remote())
        ray.get(refs)

    return batch


# --- objects ---


@case("single client get calls (Plasma Store)", "gets/s", must=3)
def get_small(session):
    ray = session.ray
    ref = ray.put(0)
    return lambda: ray.get(ref)


@case("single client put calls (Plasma Store)", "puts/s", must=10)
def put_small(session):
    ray = session.ray
    return lambda: ray.put(0)


@case("multi client put calls (Plasma Store)", "puts/s", must=10, times=1000)
def put_small_multi(session):
    ray = session.ray

    @ray.remote
    def puts():
        for _ in range(100):
            ray.put(0)

    return lambda: ray.get([puts.remote() for _ in range(10)])


@case("single client put gigabytes", "GB/s", must=1.5, times=0.8)
def put_large(session):
    import numpy as np

    ray, array = session.ray, np.zeros(100 * 1024 * 1024, dtype=np.int64)
    return lambda: ray.put(array)


@case("multi client put gigabytes", "GB/s", must=1, times=8)
def put_large_multi(session):
    ray = session.ray

    @ray.remote
    def puts():
        import numpy as np

        for _ in range(10):
            ray.put(np.zeros(10 * 1024 * 1024, dtype=np.int64))

    return lambda: ray.get([puts.remote() for _ in range(10)])


@case("floor: memcpy of 800 MiB between touched pages", "GB/s", times=0.8)
def memcpy(session):
    import numpy as np

    a, b = np.ones(100 * 1024 * 1024, dtype=np.int64), np.ones(100 * 1024 * 1024, dtype=np.int64)
    return lambda: np.copyto(b, a)


@case("single client wait 1k refs", "rounds/s", must=20)
def wait_many(session):
    ray, f = session.ray, small(session.ray)

    def rounds():
        left, fetch = [f.remote() for _ in range(1000)], True
        while left:
            _, left = ray.wait(left, num_returns=1, fetch_local=fetch)
            fetch = False

    return rounds


@case("single client get object containing 10k refs", "gets/s", must=3)
def get_of_refs(session):
    ray = session.ray

    @ray.remote
    def make():
        return [ray.put(1) for _ in range(10_000)]

    holder = make.remote()
    ray.wait([holder])
    return lambda: ray.get(holder)


@case("10,000 arguments to one task", "s", TIME, must=10)
def many_args(session):
    ray = session.ray

    @ray.remote
    def total(*args):
        return sum(len(a) for a in args)

    value = list(range(10_000))
    t = time.perf_counter()
    refs = [ray.put(value) for _ in range(10_000)]
    assert ray.get(total.remote(*refs)) == 10_000 * 10_000
    return time.perf_counter() - t


@case("floor: 10,000 lists of 10,000 ints, pickled, unpickled and kept", "s", TIME)
def lists_floor(session):
    """What the next case costs without any engine: each value is made afresh, in one process."""
    import pickle

    value = list(range(10_000))
    t = time.perf_counter()
    data = [pickle.dumps(value, 5) for _ in range(10_000)]
    got = [pickle.loads(d) for d in data]
    seconds = time.perf_counter() - t
    assert len(got) == 10_000
    return seconds


@case("10,000 small arguments to one task", "s", TIME, must=10)
def small_args(session):
    ray = session.ray

    @ray.remote
    def count(*args):
        return len(args)

    t = time.perf_counter()
    refs = [ray.put(i) for i in range(10_000)]
    assert ray.get(count.remote(*refs)) == 10_000
    return time.perf_counter() - t


@case("10,000 small puts and their get", "s", TIME, must=10)
def small_gets(session):
    ray = session.ray
    t = time.perf_counter()
    got = ray.get([ray.put(i) for i in range(10_000)])
    seconds = time.perf_counter() - t
    assert got == list(range(10_000))
    return seconds


@case("10,000 puts and their get", "s", TIME, must=10)
def many_gets(session):
    ray = session.ray
    value = list(range(10_000))
    t = time.perf_counter()
    refs = [ray.put(value) for _ in range(10_000)]
    got = ray.get(refs)
    seconds = time.perf_counter() - t
    assert all(len(v) == 10_000 for v in got)
    return seconds


@case("100,000 tasks", "s", TIME, must=12)
def many_tasks(session):
    ray, f = session.ray, small(session.ray)
    t = time.perf_counter()
    got = ray.get([f.remote() for _ in range(100_000)])
    seconds = time.perf_counter() - t
    assert len(got) == 100_000
    return seconds


@case("1,000,000 lines of a task shown by its driver", "s", TIME, must=3)
def log_lines(session):
    import subprocess
    import tempfile

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log_lines.py")
    with tempfile.NamedTemporaryFile() as out:
        argv = [sys.executable, program, "1000000", out.name]
        done = subprocess.run(argv, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    return float(done.stderr.splitlines()[-1])


# --- what only Gray's daemon can be asked ---


@case("daemon CPU a no-op task", "µs", SIZE, limit=15, where="heavy", alone=True)
def daemon_cpu(session):
    ray, f, n = session.ray, small(session.ray), 50_000
    ray.get([f.remote() for _ in range(1000)])
    before = cpu_seconds(session.daemon())
    for _ in range(n // 1000):
        ray.get([f.remote() for _ in range(1000)])
    return (cpu_seconds(session.daemon()) - before) / n * 1e6


@case("1,000,000 tasks queued on one node: daemon memory", "MB", SIZE, limit=1200, where="heavy", alone=True)
def million_queued(session):
    import tempfile

    ray, f = session.ray, small(session.ray)

    @ray.remote
    def hold(path):
        with open(path) as gate:  # a named pipe: opening it waits for the other end
            gate.read()

    with tempfile.TemporaryDirectory() as folder:
        cpus = int(ray.cluster_resources()["CPU"])
        gates = [os.path.join(folder, str(i)) for i in range(cpus)]
        for g in gates:
            os.mkfifo(g)
        held = [hold.remote(g) for g in gates]
        ends = [open(g, "w") for g in gates]
        refs = [f.remote() for _ in range(1_000_000)]
        ray.wait(refs[-1:], timeout=0)  # all that is buffered has left
        memory = resident(session.daemon())
        for e in ends:
            e.close()
        ray.get(held)
        done = 0
        for i in range(0, len(refs), 1000):
            done += sum(v == b"ok" for v in ray.get(refs[i : i + 1000]))
        assert done == 1_000_000
    return memory / 1e6


@case(
    "1 GB object to 3 other daemons: times its bytes left the owner",
    "times",
    SIZE,
    limit=2,
    where="cluster",
    alone=True,
)
def broadcast(cluster):
    return cluster.broadcast()


def broadcast_main():
    """The driver of it: puts 1 GB, tells, lets each of three other nodes read it."""
    import numpy as np

    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address="auto", log_to_driver=False)
    here = ray.get_runtime_context().get_node_id()

    @ray.remote(num_cpus=0)
    def length(array):
        return len(array)

    def everywhere(arg):
        others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here]
        assert len(others) == 3, others
        refs = [
            length.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)).remote(arg)
            for n in others
        ]
        return ray.get(refs)

    everywhere(b"warm")
    ref = ray.put(np.ones(10**9, dtype=np.uint8))
    print("warm", flush=True)
    sys.stdin.readline()
    assert everywhere(ref) == [10**9] * 3
    print("done", flush=True)
    sys.stdin.readline()
    ray.shutdown()


@case("placements in the core, 2,000 nodes, 100,000 tasks", "placements/s", limit=200_000, where="go", alone=True)
def placements():
    """Returns the figures of the Go benchmark, one an iteration of 100,000 placements."""
    import re
    import subprocess

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = ["go", "test", "-run", "^$", "-bench", "^BenchmarkPlaceOneByOne$", "-benchtime", "5x", "-count", "3"]
    said = subprocess.run(
        [*command, "./internal/core/schedule"], cwd=root, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return [float(v) for v in re.findall(r"([\d.e+]+) placements/s", said)]


# --- several drivers of one cluster ---


@case("four driver processes, tasks async", "tasks/s", must=10, times=4 * 5000, where="cluster")
def four_drivers(cluster):
    """Four processes, each five times 1,000 tasks and their get; the slowest counts."""
    return cluster.drivers(4)


def driver_main():
    """One of the four: says when it is warm, starts when told, says when it is done."""
    import ray

    ray.init(address="auto", log_to_driver=False)  # RAY_TMPDIR says which
    f = small(ray)
    ray.get([f.remote() for _ in range(1000)])
    print("warm", flush=True)
    sys.stdin.readline()
    for _ in range(5):
        ray.get([f.remote() for _ in range(1000)])
    print("done", flush=True)
    sys.stdin.readline()
    ray.shutdown()


# --- measuring ---


def rates(call, times, seconds):
    """Calls ``call`` until warm, then two rounds of at least ``seconds``; returns two figures in units a second."""
    calls, t = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - t < seconds / 2:
        call()
        calls += 1
    step = calls // 10 + 1
    values = []
    for _ in range(2):
        calls, t = 0, time.perf_counter()
        while time.perf_counter() - t < seconds:
            for _ in range(step):
                call()
            calls += step
        values.append(times * calls / (time.perf_counter() - t))
    return values


class Session:
    """A driver with a cluster of its own, started here."""

    def __init__(self):
        os.environ.setdefault("RAY_DEDUP_LOGS", "1")
        import ray

        self.ray = ray
        ray.init(log_to_driver=False)
        assert ray.get(small(ray).remote()) == b"ok"
        self.started = time.perf_counter() - START

    def idle_pss(self):
        """Returns the PSS, in bytes, of all processes below this one, once two workers have worked and all is quiet."""
        ray = self.ray

        @ray.remote
        def nap():
            time.sleep(0.2)

        ray.get([nap.remote() for _ in range(2)])
        return settled(lambda: pss_below(os.getpid()))

    def daemon(self):
        """Returns the process id of Gray's daemon below this process."""
        for pid in below(os.getpid()):
            try:
                if os.readlink("/proc/%d/exe" % pid).endswith("/ray/_bin/ray"):
                    return pid
            except OSError:
                continue
        raise RuntimeError("no process below this one runs ray/_bin/ray")

    def stop(self):
        t = time.perf_counter()
        self.ray.shutdown()
        return time.perf_counter() - t


def settled(size):
    """Returns what ``size()`` is once it is the same in three looks a second apart, or after 30 s: processes still start."""
    last, same = 0, 0
    deadline = time.perf_counter() + 30
    while same < 3 and time.perf_counter() < deadline:
        time.sleep(1)
        now = size()
        same = same + 1 if abs(now - last) < 0.01 * now else 0
        last = now
    return last


def below(root):
    """Returns the process ids of all descendants of a process."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                parent = int(f.read().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(pid))
    found, todo = [], [root]
    while todo:
        found += (more := children.get(todo.pop(), []))
        todo += more
    return found


def pss_below(root):
    """Returns the sum, in bytes, of the PSS of all descendants of a process."""
    return pss_of(below(root))


def pss_of(pids):
    """Returns the sum, in bytes, of the PSS of processes; those that have ended have none."""
    total = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def cpu_seconds(pid):
    """Returns the CPU time, user and system, that a process has used."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Returns the resident memory of a process, without the pages it shares, in bytes."""
    with open("/proc/%d/status" % pid) as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))


def be_subreaper():
    """Orphans of our children become our children: a daemon cannot leave the tree that is measured and cleared up."""
    import ctypes

    PR_SET_CHILD_SUBREAPER = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="file for the figures")
    parser.add_argument("--seconds", type=float, default=1.5, help="the least time of a timed round")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    be_subreaper()
    session = Session()
    failed = False
    with open(args.out, "a") as out:
        for c in CASES:
            if c.name not in args.cases:
                continue
            try:
                got = c.run(session)
                values = rates(got, c.times, args.seconds) if c.kind == RATE else [got]
                line = {"case": c.name, "values": values}
                del got
            except Exception as e:
                traceback.print_exc()
                line, failed = {"case": c.name, "error": "%s: %s" % (type(e).__name__, e)}, True
            out.write(json.dumps(line) + "\n")
            out.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.modules["cases"] = sys.modules["__main__"]  # actor_cases adds to this list, not to another of the same file

import actor_cases  # noqa: E402, F401
import cancel_cases  # noqa: E402, F401
import client_cases  # noqa: E402, F401

if __name__ == "__main__":
    if sys.argv[1:2] in (["driver"], ["broadcast"]):
        sys.exit({"driver": driver_main, "broadcast": broadcast_main}[sys.argv[1]]())
    sys.exit(main())
