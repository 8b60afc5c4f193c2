"""Long runs: what holds for a hundred tasks holds for very many, and while processes die."""

import os
import signal

import pytest
from machines import line, tell, until, workers_of

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


def test_two_million_tasks(home):
    """A driver that runs for long makes its daemon no larger."""
    head = home.head(cpus=2)
    driver = home.driver("""
        import sys, ray
        ray.init("auto", log_to_driver=False)
        f = ray.remote(lambda x: x)
        for line in sys.stdin:
            for _ in range(int(line)):
                assert sum(ray.get([f.remote(k) for k in range(1000)])) == 499_500
                ray.get(ray.put(bytes(200_000)))
            print("done", flush=True)
    """)
    tell(driver, "100")
    assert line(driver, 300) == "done"
    before = memory(head["pid"])
    tell(driver, "2000")
    assert line(driver, 1500) == "done"
    grown = memory(head["pid"]) - before
    assert grown < 32 << 20, f"{grown} bytes more after 2,000,000 tasks"


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
