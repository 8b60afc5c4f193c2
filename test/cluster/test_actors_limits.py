"""Actors in numbers: very many calls, very many actors, and what a daemon and a process of each then need."""

import os
import time

import pytest
from actors import HEAD, ON, four
from machines import alive, family, line, tell, until, workers_of

MB = 1e6


def anonymous(pid):
    """Bytes that a process has resident and does not share."""
    with open(f"/proc/{pid}/status") as f:
        return int(next(r for r in f if r.startswith("RssAnon")).split()[1]) << 10


def pss(pid):
    """Bytes of a process, its part of what it shares included."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(next(r for r in f if r.startswith("Pss:")).split()[1]) << 10


@pytest.mark.parametrize(
    ("calls", "where"),
    [
        pytest.param(200_000, "c", marks=pytest.mark.slow),
        pytest.param(1_000_000, "b", marks=pytest.mark.soak),
        pytest.param(1_000_000, "c", marks=pytest.mark.soak),
    ],
)
def test_a_million_calls_to_a_slow_actor(home, calls, where):
    """The caller, its daemon and the host's stay small; another caller is served meanwhile."""
    head, b, c, _ = four(home, cpus=2)
    driver = home.driver(ON + """
    import resource, threading
    @ray.remote
    class Slow:
        def __init__(self):
            self.n = 0
        def work(self, k):
            self.n += 1
            if self.n < 100 or self.n % 10_000 == 0:
                time.sleep(0.01)
        def told(self):
            return self.n
    slow = Slow.options(resources={sys.argv[3]: 1}).remote()
    ray.get(slow.told.remote())
    print(os.getpid(), flush=True)
    sent = 0
    def send():
        global sent
        for k in range(int(sys.argv[4])):
            slow.work.remote(k)  # nobody keeps the ref
            sent = k + 1
    t = threading.Thread(target=send)
    t.start()
    for _ in sys.stdin:
        print(sent, flush=True)
    t.join()
    print(ray.get(slow.told.remote()), flush=True)
    """, "127.0.0.2", head["gcs_address"], where, calls)  # fmt: skip
    pid = int(line(driver))
    other = home.driver(HEAD + """
    @ray.remote(num_cpus=0)
    class Quick:
        def add(self, x):
            return x + 1
    quick = Quick.options(resources={sys.argv[1]: 1}).remote()
    for text in sys.stdin:
        began = time.monotonic()
        assert ray.get(quick.add.remote(1)) == 2
        print(time.monotonic() - began, flush=True)
    """, where)  # fmt: skip
    tell(other)
    line(other)
    begun = {p: anonymous(p) for p in (pid, b["pid"], c["pid"], head["pid"])}
    most, waits = dict(begun), []
    while True:
        tell(driver)
        sent = int(line(driver, 120))
        tell(other)
        waits.append(float(line(other)))
        for p in most:
            most[p] = max(most[p], anonymous(p))
        if sent == calls:
            break
        time.sleep(0.2)
    driver.stdin.close()
    assert line(driver, 300) == str(calls)
    grown = {p: (most[p] - begun[p]) / MB for p in most}
    assert max(grown.values()) < 50 + calls / 2500, grown  # 400 bytes a call
    assert sorted(waits)[len(waits) // 2] < 1 and max(waits) < 10, waits
    other.stdin.close()
    assert driver.wait(20) == other.wait(20) == 0


@pytest.mark.slow
def test_two_callers_of_one_actor(home):
    """One has 100,000 calls waiting; another, on another node, is answered between them."""
    nodes = four(home)
    out = home.python(ON + """
    @ray.remote
    class Slow:
        def work(self):
            time.sleep(0.001)
    @ray.remote(num_cpus=0)
    def ask(slow):
        took = []
        for _ in range(20):
            began = time.monotonic()
            ray.get(slow.work.remote())
            took.append(time.monotonic() - began)
        return sorted(took)
    slow = Slow.options(resources={"c": 1}).remote()
    ray.get(slow.work.remote())
    refs = [slow.work.remote() for _ in range(100_000)]
    print(max(ray.get([ask.options(resources={x: 1}).remote(slow) for x in "bcd"])[0:3], key=lambda t: t[10])[10])
    print(len(ray.wait(refs, num_returns=len(refs), timeout=0)[1]) > 50_000)
    """, "127.0.0.2", nodes[0]["gcs_address"])  # fmt: skip
    median, waiting = out.split()
    assert float(median) < 2 and waiting == "True", out


@pytest.mark.slow
def test_a_thousand_idle_actors(home):
    """They are made, answer, cost at most 12 MB each, and are gone when their driver is."""
    head = home.head(cpus=2)
    driver = home.driver(
        HEAD
        + """
    @ray.remote(num_cpus=0)
    class Idle:
        def __init__(self, k):
            self.k = k
        def told(self):
            return self.k, os.getpid()
    began = time.monotonic()
    idle = [Idle.remote(k) for k in range(1000)]
    got = ray.get([a.told.remote() for a in idle])
    assert [k for k, _ in got] == list(range(1000)) and len({p for _, p in got}) == 1000
    print(*(p for _, p in got), flush=True)
    for _ in sys.stdin:
        assert [k for k, _ in ray.get([a.told.remote() for a in idle])] == list(range(1000))
        print("again", flush=True)
    """
    )
    pids = [int(p) for p in line(driver, 300).split()]
    sample = pids[::50]
    costs = sorted(pss(p) / MB for p in sample)
    tell(driver)
    assert line(driver, 120) == "again"
    assert costs[-1] <= 12, costs
    mine = [p for pid in pids for p in family(pid)]
    assert anonymous(head["pid"]) < 200 * MB
    driver.kill()
    until(lambda: not any(map(alive, mine)), "the end of 1,000 actors", 60)
    until(lambda: len(workers_of(head["pid"])) <= 2, "the end of the workers", 30)
    until(lambda: len(os.listdir(f"/proc/{head['pid']}/fd")) < 100, "the end of the daemon's sockets to them", 30)
