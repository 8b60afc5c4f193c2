"""Generators that run on another node than their caller."""

import time

import numpy as np
import pytest

import ray
from ray.exceptions import ActorDiedError, WorkerCrashedError


@pytest.fixture
def three(cluster):
    """The driver's node without CPUs, and two that run things."""
    cluster.add_node(num_cpus=0)
    nodes = [cluster.add_node(num_cpus=2, resources={name: 2}, object_store_memory=80 << 20) for name in ("a", "b")]
    ray.init(cluster.address)
    return cluster, nodes


@ray.remote(num_cpus=1)
def count(n, large=False, pause=0.0):
    for i in range(n):
        yield np.full(50_000, i) if large else [i, ray.put(i)]
        time.sleep(pause)


@ray.remote
def first_of(x):
    return int(x[0])


def test_items_between_nodes(three):
    for name, other in (("a", "b"), ("b", "a")):
        gen = count.options(resources={name: 1}).remote(200)
        assert [(i, ray.get(ref)) for i, ref in (ray.get(r) for r in gen)] == [(i, i) for i in range(200)]
        large = count.options(resources={name: 1}).remote(6, True)
        assert [ray.get(first_of.options(resources={other: 1}).remote(r)) for r in large] == list(range(6))

    @ray.remote(resources={"a": 1}, _generator_backpressure_num_objects=2)
    def bounded():
        for i in range(10):
            yield (i, time.monotonic())

    gen = bounded.remote()
    time.sleep(0.3)
    before = time.monotonic()
    stamps = [ray.get(r)[1] for r in gen]
    assert sum(s < before for s in stamps) == 2


def test_actors_and_tasks_on_two_nodes(three):
    @ray.remote(resources={"a": 1})
    class Source:
        def count(self, n):
            yield from range(n)

        async def acount(self, n):
            for i in range(n):
                yield i

    @ray.remote(resources={"b": 1})
    def double(source, n):
        for ref in source.count.remote(n):
            yield 2 * ray.get(ref)

    source = Source.remote()
    assert [ray.get(r) for r in double.remote(source, 50)] == list(range(0, 100, 2))
    assert [ray.get(r) for r in source.acount.remote(50)] == list(range(50))


@pytest.mark.slow
def test_the_death_of_a_node(three):
    cluster, (a, _) = three

    @ray.remote(resources={"a": 1})
    class Source:
        def count(self):
            for i in range(1000):
                yield i
                time.sleep(0.02)

    task = count.options(resources={"a": 1}, max_retries=0).remote(1000, False, 0.02)
    source = Source.remote()
    call = source.count.remote()
    next(task), next(call)
    cluster.remove_node(a, allow_graceful=False)
    with pytest.raises(WorkerCrashedError):
        for ref in task:
            last = ref
            ray.get(ref)
    with pytest.raises(ActorDiedError):
        for ref in call:
            ray.get(ref)
    assert last and list(task) == [] and list(call) == []
