"""The cases with actors, as cases.py has the others: on Ray's public API, so that Gray and Ray run the very same lines.

Names and work are those of `ray microbenchmark` where it has the case. ``servers`` is half the number of cores, as there.
"""

import multiprocessing
import os
import time

from cases import SIZE, TIME, case, pss_below, small


def servers():
    return max(multiprocessing.cpu_count() // 2, 1)


def classes(ray):
    """Returns the actor classes of the cases: sync, async, and a client of either."""

    @ray.remote(num_cpus=0)
    class Actor:
        def small_value(self):
            return b"ok"

        def small_value_arg(self, x):
            return b"ok"

    @ray.remote
    class AsyncActor:
        async def small_value(self):
            return b"ok"

        async def small_value_with_arg(self, x):
            return b"ok"

    @ray.remote(num_cpus=0)
    class Client:
        def __init__(self, servers):
            self.servers = servers if isinstance(servers, list) else [servers]

        def small_value_batch(self, n):
            refs = []
            for s in self.servers:
                refs.extend([s.small_value.remote() for _ in range(n)])
            ray.get(refs)

        def small_value_batch_arg(self, n):
            x = ray.put(0)
            refs = []
            for s in self.servers:
                refs.extend([s.small_value_arg.remote(x) for _ in range(n)])
            ray.get(refs)

    return Actor, AsyncActor, Client


@case("multi client tasks async", "tasks/s", must=10, times=40_000)
def tasks_multi(session):
    """Four actors, each of which submits 10,000 tasks and gets them."""
    ray, task = session.ray, small(session.ray)

    @ray.remote(num_cpus=0)
    class Submitter:
        def batch(self, n):
            ray.get([task.remote() for _ in range(n)])

    actors = [Submitter.remote() for _ in range(4)]
    return lambda: ray.get([a.batch.remote(10_000) for a in actors])


@case("1:1 actor calls sync", "calls/s", must=6)
def sync(session):
    ray = session.ray
    a = classes(ray)[0].remote()
    return lambda: ray.get(a.small_value.remote())


@case("1:1 actor calls async", "calls/s", must=6, times=1000)
def pipelined(session):
    ray = session.ray
    a = classes(ray)[0].remote()
    return lambda: ray.get([a.small_value.remote() for _ in range(1000)])


@case("1:1 actor calls concurrent", "calls/s", must=6, times=1000)
def concurrent(session):
    ray = session.ray
    a = classes(ray)[0].options(max_concurrency=16).remote()
    return lambda: ray.get([a.small_value.remote() for _ in range(1000)])


@case("1:n actor calls async", "calls/s", must=6, times=5000 * servers())
def one_to_many(session):
    ray = session.ray
    actor, _, client = classes(ray)
    c = client.remote([actor.remote() for _ in range(servers())])
    return lambda: ray.get(c.small_value_batch.remote(5000))


def callers(ray):
    """Returns a task that calls the actors it is given in turn, n times in all."""

    @ray.remote
    def work(actors, n):
        ray.get([actors[i % len(actors)].small_value.remote() for i in range(n)])

    return work


@case("n:n actor calls async", "calls/s", must=6, times=20_000)
def many_to_many(session):
    ray = session.ray
    work = callers(ray)
    actors = [classes(ray)[0].remote() for _ in range(servers())]
    return lambda: ray.get([work.remote(actors, 5000) for _ in range(4)])


@case("n:n actor calls with arg async", "calls/s", must=6, times=1000 * servers())
def many_to_many_arg(session):
    ray = session.ray
    actor, _, client = classes(ray)
    clients = [client.remote(actor.remote()) for _ in range(servers())]
    return lambda: ray.get([c.small_value_batch_arg.remote(1000) for c in clients])


@case("1:1 async-actor calls sync", "calls/s", must=6)
def async_sync(session):
    ray = session.ray
    a = classes(ray)[1].remote()
    return lambda: ray.get(a.small_value.remote())


@case("1:1 async-actor calls async", "calls/s", must=6, times=1000)
def async_pipelined(session):
    ray = session.ray
    a = classes(ray)[1].remote()
    return lambda: ray.get([a.small_value.remote() for _ in range(1000)])


@case("1:1 async-actor calls with args async", "calls/s", must=6, times=1000)
def async_args(session):
    ray = session.ray
    a = classes(ray)[1].remote()
    return lambda: ray.get([a.small_value_with_arg.remote(i) for i in range(1000)])


@case("1:n async-actor calls async", "calls/s", must=6, times=5000 * servers())
def async_one_to_many(session):
    ray = session.ray
    _, actor, client = classes(ray)
    c = client.remote([actor.remote() for _ in range(servers())])
    return lambda: ray.get(c.small_value_batch.remote(5000))


@case("n:n async-actor calls async", "calls/s", must=6, times=20_000)
def async_many_to_many(session):
    ray = session.ray
    work = callers(ray)
    actors = [classes(ray)[1].remote() for _ in range(servers())]
    return lambda: ray.get([work.remote(actors, 5000) for _ in range(4)])


@case("new actor to first answer, median", "s", TIME, must=40)
def first_answer(session):
    ray, actor = session.ray, classes(session.ray)[0]
    took = []
    for _ in range(9):
        t = time.perf_counter()
        a = actor.remote()
        ray.get(a.small_value.remote())
        took.append(time.perf_counter() - t)
        del a
    return sorted(took)[4]


@case("100 actors created and called", "s", TIME, must=20)
def hundred(session):
    ray, actor = session.ray, classes(session.ray)[0]
    t = time.perf_counter()
    actors = [actor.remote() for _ in range(100)]
    ray.get([a.small_value.remote() for a in actors])
    return time.perf_counter() - t


@case("1,000 idle actors on one node: PSS of each", "MB", SIZE, limit=12, where="heavy", alone=True)
def thousand(session):
    ray, actor = session.ray, classes(session.ray)[0]
    before = pss_below(os.getpid())
    actors = [actor.remote() for _ in range(1000)]
    ray.get([a.small_value.remote() for a in actors])
    return (pss_below(os.getpid()) - before) / len(actors) / 1e6
