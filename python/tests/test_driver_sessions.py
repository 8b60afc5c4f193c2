"""Session after session in one process."""

import os
import pickle
import threading
import time

import pytest

import ray


@ray.remote
def inc(x):
    return x + 1


def test_a_hundred_sessions_of_a_process(own_env):
    """Nothing grows: no descriptor, no thread, and no memory to speak of."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=1)

    def counts():
        with open("/proc/self/statm") as f:
            pages = int(f.read().split()[1])
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), pages * 4

    try:
        for k in range(100):
            ray.init(cluster.address)
            assert ray.get(inc.remote(k)) == k + 1
            thread = threading.Thread(target=lambda k=k: ray.get(inc.remote(k)))
            thread.start()
            thread.join()
            ray.shutdown()
            if k == 9:
                fds, threads, kib = counts()
        end = time.monotonic() + 30
        while counts()[:2] != (fds, threads):
            assert time.monotonic() < end, (
                f"after 10 sessions {fds} descriptors and {threads} threads, after 100: {counts()}"
            )
            time.sleep(0.01)
        assert counts()[2] < kib + 8 * 1024
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_sessions_with_their_own_daemon(own_env):
    for k in range(3):
        ray.init(num_cpus=1, object_store_memory=80 << 20)
        assert ray.get(inc.remote(k)) == k + 1
        ray.shutdown()
    assert not ray.is_initialized()


@ray.remote
class Counter:
    def up(self):
        return 1


def test_what_is_left_of_an_earlier_session(own_env):
    """Its ids are given again in the next one: a ref that went along in a value would name another object."""
    ray.init(num_cpus=1, object_store_memory=80 << 20)
    a = Counter.remote()
    old = [inc.remote(1), ray.put(2)]
    assert ray.get([*old, a.up.remote()]) == [2, 2, 1]
    ray.shutdown()
    ray.init(num_cpus=1, object_store_memory=80 << 20)

    @ray.remote
    def holds():
        return old

    for use in (
        lambda: ray.get(old[0]),
        lambda: ray.wait(old),
        lambda: inc.remote(old[1]),
        lambda: inc.remote(old),
        lambda: ray.put({"deep": (old, len)}),
        holds.remote,
    ):
        with pytest.raises(ray.exceptions.RaySystemError, match=r"closed by ray.shutdown\(\)") as e:
            use()
        assert isinstance(e.value, ValueError) and isinstance(pickle.loads(pickle.dumps(e.value)), ValueError)
    for use in (a.up.remote, lambda: inc.remote(a), lambda: ray.put([a]), lambda: ray.kill(a)):
        with pytest.raises(ray.exceptions.ActorHandleNotFoundError):
            use()
    assert ray.get(Counter.remote().up.remote()) == 1
    ray.shutdown()
