"""The cases of `ray microbenchmark` that go by ray://, as cases.py has the others.

They run in a driver whose RAY_ADDRESS is the client port of a cluster that was started by the command, on this machine:
what they measure is the way there and back, not the network.
"""

from cases import case, small


@case("client: get calls", "gets/s", must=10, where="client")
def client_get(session):
    ray = session.ray
    ref = ray.put(0)
    return lambda: ray.get(ref)


@case("client: put calls", "puts/s", must=10, where="client")
def client_put(session):
    ray = session.ray
    return lambda: ray.put(0)


@case("client: put gigabytes", "GB/s", must=1, times=0.8, where="client")
def client_put_large(session):
    """800 MiB of zeros, which are at the cluster once a task has them."""
    import numpy as np

    ray = session.ray
    array = np.zeros(100 * 1024 * 1024, dtype=np.int64)

    @ray.remote
    def length(x):
        return len(x)

    return lambda: ray.get(length.remote(ray.put(array)))


@case("client: tasks and get batch", "batches/s", must=10, where="client")
def client_batch(session):
    ray, task = session.ray, small(session.ray)
    return lambda: ray.get([task.remote() for _ in range(1000)])


@case("client: tasks and put batch", "puts/s", must=1, times=1000, where="client")
def client_put_batch(session):
    """Ten tasks, each of which puts a hundred times: the client has little to do with it."""
    ray = session.ray

    @ray.remote
    def puts():
        for _ in range(100):
            ray.put(0)

    return lambda: ray.get([puts.remote() for _ in range(10)])


def actor(ray):
    @ray.remote(num_cpus=0)
    class Actor:
        def small_value(self):
            return b"ok"

    return Actor.remote()


@case("client: 1:1 tasks sync", "tasks/s", must=1, where="client")
def client_tasks(session):
    ray, task = session.ray, small(session.ray)
    return lambda: ray.get(task.remote())


@case("client: 1:1 actor calls sync", "calls/s", must=1, where="client")
def client_calls(session):
    ray, a = session.ray, actor(session.ray)
    return lambda: ray.get(a.small_value.remote())


@case("client: 1:1 actor calls async", "calls/s", must=5, times=1000, where="client")
def client_calls_async(session):
    ray, a = session.ray, actor(session.ray)
    return lambda: ray.get([a.small_value.remote() for _ in range(1000)])
