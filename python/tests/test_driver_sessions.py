"""Session after session in one process."""

import os
import threading
import time

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
