"""Generators among the methods of actors of all kinds, and across nodes."""

import asyncio
import os
import threading
import time

import numpy as np
import pytest

import ray
from ray.exceptions import ActorDiedError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("shared_ray")


class _Methods:
    def count(self, n):
        yield from range(n)

    def fails(self, n):
        yield from range(n)
        raise ValueError("that was all")

    def dies(self):
        yield 1
        time.sleep(0.1)
        os._exit(1)

    def plain(self):
        return "plain"

    def large(self, n):
        for i in range(n):
            yield np.full(50_000, i)

    @ray.method(_generator_backpressure_num_objects=2)
    def bounded(self, n):
        for i in range(n):
            self.made = i + 1
            yield i

    def so_far(self):
        return self.made

    @ray.method(num_returns=2)
    def two(self):
        yield 1
        yield 2


@ray.remote
class Plain(_Methods):
    pass


@ray.remote(max_concurrency=4)
class Threaded(_Methods):
    def thread(self):
        for _ in range(3):
            yield threading.get_ident()
            time.sleep(0.05)


@ray.remote
class Async(_Methods):
    async def acount(self, n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def afails(self, n):
        for i in range(n):
            yield i
        raise ValueError("that was all")

    async def endless(self):
        try:
            i = 0
            while True:
                yield i
                i += 1
                await asyncio.sleep(0.01)
        finally:
            self.closed = True

    async def was_closed(self):
        return getattr(self, "closed", False)

    @ray.method(_generator_backpressure_num_objects=2)
    async def abounded(self, n):
        for i in range(n):
            self.made = i + 1
            yield i

    async def aso_far(self):
        return self.made


KINDS = [Plain, Threaded, Async]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__ if hasattr(k, "__name__") else str(k))
def test_items_of_each_kind(kind):
    a = kind.remote()
    assert [ray.get(r) for r in a.count.remote(100)] == list(range(100))
    assert [int(ray.get(r)[-1]) for r in a.large.remote(4)] == [0, 1, 2, 3]
    assert ray.get(a.two.remote()) == [1, 2]
    assert [ray.get(r) for r in ray.get(a.count.options(num_returns="dynamic").remote(3))] == [0, 1, 2]
    refs = list(a.fails.remote(1))
    assert ray.get(refs[0]) == 0 and len(refs) == 2
    with pytest.raises(ValueError, match="that was all"):
        ray.get(refs[1])
    assert ray.get(a.plain.remote()) == "plain"
    with pytest.raises(ValueError, match="can only be used with generator functions"):
        a.plain.options(num_returns="streaming").remote()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__ if hasattr(k, "__name__") else str(k))
def test_the_death_of_the_actor_is_the_last_item(kind):
    a = kind.remote()
    gen = a.dies.remote()
    assert ray.get(next(gen)) == 1
    with pytest.raises(ActorDiedError):
        ray.get(next(gen))
    with pytest.raises(StopIteration):
        next(gen)
    with pytest.raises(ActorDiedError):
        ray.get(next(a.count.remote(1)))


@pytest.mark.parametrize(
    ("kind", "method", "ask"),
    [(Threaded, "bounded", "so_far"), (Async, "abounded", "aso_far")],
    ids=["thread", "async"],
)
def test_bounds_while_others_run(kind, method, ask):
    a = kind.remote()
    gen = getattr(a, method).remote(6)
    for taken in range(6):
        assert ray.get(next(gen)) == taken
        deadline = time.monotonic() + 20
        while ray.get(getattr(a, ask).remote()) != min(taken + 3, 6):
            assert time.monotonic() < deadline
        time.sleep(0.03)
        assert ray.get(getattr(a, ask).remote()) == min(taken + 3, 6)
    assert list(gen) == []


def test_threads_run_generators_side_by_side():
    a = Threaded.remote()
    gens = [a.thread.remote() for _ in range(3)]
    idents = [[ray.get(r) for r in gen] for gen in gens]
    assert all(len(set(own)) == 1 for own in idents) and len({own[0] for own in idents}) == 3


def test_async_generators_run_side_by_side():
    a = Async.remote()
    assert [ray.get(r) for r in a.acount.remote(100)] == list(range(100))
    first, second = a.endless.remote(), a.endless.remote()
    assert [ray.get(next(g)) for _ in range(3) for g in (first, second)] == [0, 0, 1, 1, 2, 2]
    refs = list(a.afails.remote(2))
    with pytest.raises(ValueError, match="that was all"):
        ray.get(refs[2])
    with pytest.raises(TypeError, match="not iterable"):
        ray.get(a.acount.options(num_returns=2).remote(2))

    async def read():
        return [await r async for r in a.acount.remote(5)]

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]


def test_cancel_an_async_generator():
    a = Async.remote()
    gen = a.endless.remote()
    assert ray.get(next(gen)) == 0
    ray.cancel(gen)
    with pytest.raises(TaskCancelledError):
        for ref in gen:
            ray.get(ref)
    with pytest.raises(StopIteration):
        next(gen)
    assert ray.get(a.was_closed.remote())


def test_a_restarted_actor_goes_on(tmp_path):
    @ray.remote(max_restarts=1, max_task_retries=1)
    class Flaky:
        def count(self, n):
            for i in range(n):
                yield i
                if i == 2 and not (tmp_path / "died").exists():
                    time.sleep(0.1)
                    (tmp_path / "died").touch()
                    os._exit(1)

    assert [ray.get(r) for r in Flaky.remote().count.remote(6)] == list(range(6))


def test_a_worker_reads_streams():
    @ray.remote
    def total(actor, n):
        return sum(ray.get(r) for r in actor.count.remote(n))

    @ray.remote
    def chain(n):
        for ref in Plain.remote().count.remote(n):
            yield ref  # the item is a ref

    assert ray.get(total.remote(Plain.remote(), 100)) == 4950
    assert [ray.get(ray.get(r)) for r in chain.remote(3)] == [0, 1, 2]
