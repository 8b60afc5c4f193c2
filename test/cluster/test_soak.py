"""Long runs: what holds for a hundred tasks holds for very many, and while processes die."""

import os
import signal

import pytest
from machines import line, tell, until, workers_of, zygote_of

from ray._core.left import of, until_empty

pytestmark = pytest.mark.soak


def memory(pid):
    """Bytes that a process has resident and does not share."""
    with open(f"/proc/{pid}/status") as f:
        return int(next(r for r in f if r.startswith("RssAnon")).split()[1]) << 10


def test_workers_die_all_the_time(home):
    """50,000 tasks on two nodes whose workers are killed again and again: each gives its value, none is lost."""
    head = home.head(cpus=2)
    other = home.node(head["gcs_address"], ip="127.0.0.2", cpus=2)
    driver = home.driver("""
        import os, random, signal, ray
        ray.init("auto", log_to_driver=False)

        @ray.remote(max_retries=-1)
        def f(k, x):
            if random.random() < 0.002:
                os.kill(os.getpid(), signal.SIGKILL)
            return k, len(x)

        big = ray.put(bytes(300_000))
        for r in range(50):
            refs = [f.remote(k, big if k % 10 == 0 else b"abc") for k in range(1000)]
            for k, got in enumerate(ray.get(refs)):
                assert got == (k, 300_000 if k % 10 == 0 else 3), (r, k, got)
        print("done", flush=True)
        input()
    """)
    assert line(driver, 900) == "done"
    tell(driver)
    assert driver.wait(60) == 0
    for node in (head, other):
        until(lambda pid=node["pid"]: len(workers_of(pid)) <= 2, "the surplus workers leave")


FLAT = """
    import sys, ray
    ray.init("auto", log_to_driver=False)

    @ray.remote
    def same(x):
        return x

    @ray.remote
    def measured(refs):
        return [ray.put(len(x)) for x in ray.get(refs)]

    @ray.remote(num_cpus=0)
    class Keeper:
        def __init__(self):
            self.kept = []
        def keep(self, x):
            self.kept.append(x)
            return len(self.kept)

    sizes = [100] * 700 + [3000] * 250 + [150_000] * 50
    for line in sys.stdin:
        for _ in range(int(line)):  # 10,000 tasks, 1,000 objects, 10 actors
            for _ in range(10):
                assert sum(ray.get([same.remote(k) for k in range(1000)])) == 499_500
            refs = [ray.put(bytes(n)) for n in sizes]
            for at in range(0, 1000, 100):
                some = refs[at : at + 100]
                assert ray.get(ray.get(measured.remote(some))) == sizes[at : at + 100]
            keepers = [Keeper.remote() for _ in range(10)]
            assert ray.get([k.keep.remote(ref) for k in keepers for ref in refs[-3:]]) == [1, 2, 3] * 10
            del refs, some, keepers
        print("done", flush=True)
"""
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))  # of FLAT: a million tasks
NOISE = 3 << 20  # bytes by which a process's memory differs from one moment to the next


def held(head, driver):
    """What a cluster that has nothing to do keeps: bytes, descriptors, goroutines and records of each process."""
    pid = head["pid"]
    sizes = of(head)["sizes"]
    found = {
        "daemon": memory(pid),
        "driver": memory(driver.pid),
        "zygote": memory(zygote_of(pid)),
        "goroutines": sizes["goroutines"],
    }
    found["worker"] = max(map(memory, workers_of(pid)))
    found["descriptors"] = len(os.listdir(f"/proc/{pid}/fd")) + len(os.listdir(f"/proc/{driver.pid}/fd"))
    kept = ("tasks", "objects", "actors", "shape_room", "template_room", "claims", "blob_bytes", "channels", "jobs")
    return {**found, **{name: sizes[name] for name in kept}}


def test_a_million_tasks_leave_nothing(home):
    """1,000,000 tasks, 100,000 objects and 1,000 actors later, everything is as large as after the first tenth."""
    head = home.head(cpus=2)
    driver = home.driver(FLAT)
    early = None
    for rounds in (ROUNDS // 10, ROUNDS - ROUNDS // 10):
        tell(driver, str(rounds))
        assert line(driver, 1700) == "done"
        until_empty([head])
        until(lambda: len(workers_of(head["pid"])) == 2, "the surplus workers leave")
        if early is None:
            early = held(head, driver)
    grown = {}

    def as_before():
        grown.clear()
        for name, now in held(head, driver).items():
            noise = NOISE if name in ("daemon", "driver", "zygote", "worker") else 8192 if name == "blob_bytes" else 8
            if now > early[name] * 1.05 + noise:
                grown[name] = (early[name], now)
        return not grown

    try:  # the garbage collector may be in the middle of its work
        until(as_before, "memory as after the first tenth")
    except AssertionError:
        raise AssertionError(f"grown since the first tenth: {grown}") from None


def test_nodes_come_and_go(home):
    """Ten nodes join, work and are killed, one after another; the cluster goes on and forgets them."""
    head = home.head(cpus=1)
    driver = home.driver("""
        import sys, ray
        ray.init("auto", log_to_driver=False)
        f = ray.remote(lambda k: k)
        for line in sys.stdin:
            assert ray.get([f.options(scheduling_strategy="SPREAD", max_retries=-1).remote(k) for k in range(200)]) == list(range(200))
            print(int(ray.cluster_resources()["CPU"]), flush=True)
    """)
    for k in range(10):
        node = home.node(head["gcs_address"], ip="127.0.0.2", cpus=2)
        tell(driver)
        assert line(driver) == "3", k
        os.kill(node["pid"], signal.SIGKILL)
        tell(driver)
        line(driver)
        until(lambda: cpus(driver) == "1", "the head finds the node dead")


def cpus(driver):
    """What the driver sees after another round of work."""
    tell(driver)
    return line(driver)
