"""Remote generators of tasks: items, errors, ends, bounds, and what is freed when."""

import asyncio
import functools
import os
import pickle
import threading
import time

import numpy as np
import pytest
from test_core_interrupts import Storm

import ray
from ray._core.state import state
from ray.exceptions import WorkerCrashedError

pytestmark = pytest.mark.usefixtures("shared_ray")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def stored():
    """How many objects the store of this node has."""
    store = state.client.call("store")
    return store["objects"]


def settled():
    """As stored, once what earlier tests left has gone."""
    seen = [stored()]
    until(lambda: seen.append(stored()) or len(seen) > 20 and len(set(seen[-20:])) == 1)
    return seen[-1]


@ray.remote
class Log:
    def __init__(self):
        self.entries = []

    def add(self, entry):
        self.entries.append(entry)
        return len(self.entries)

    def read(self):
        return self.entries


@ray.remote
def count(n):
    yield from range(n)


@ray.remote(max_retries=0)
def fail_after(n):
    yield from range(n)
    raise ValueError("that was all")


@ray.remote
def stepwise(folder, n):
    for i in range(n):
        yield i
        while not os.path.exists(os.path.join(folder, str(i))):
            time.sleep(0.01)


def go_on(folder, step):
    (folder / str(step)).touch()


def test_items_in_order():
    gen = count.remote(1000)
    assert isinstance(gen, ray.ObjectRefGenerator)
    assert [ray.get(ref) for ref in gen] == list(range(1000))
    with pytest.raises(StopIteration):
        next(gen)
    assert gen.is_finished() and not gen.next_ready()
    assert list(count.remote(0)) == []


def test_items_come_while_it_runs(tmp_path):
    gen = stepwise.remote(str(tmp_path), 3)
    assert ray.get(next(gen)) == 0
    assert not gen.next_ready() and not gen.is_finished()
    assert gen._next_sync(0.05).is_nil()
    assert ray.wait([gen, gen.completed()], num_returns=2, timeout=0.05) == ([], [gen, gen.completed()])
    go_on(tmp_path, 0)
    assert ray.wait([gen, gen.completed()], timeout=20) == ([gen], [gen.completed()])
    assert gen.next_ready() and ray.get(gen._next_sync()) == 1
    go_on(tmp_path, 1)
    go_on(tmp_path, 2)
    assert ray.get(gen.completed()) is None
    assert not gen.is_finished()
    assert ray.get(next(gen)) == 2
    assert gen.is_finished()
    assert ray.wait([gen]) == ([gen], [])
    with pytest.raises(StopIteration):
        gen._next_sync(1)


def test_wait_for_generators_and_refs(tmp_path):
    gens = [stepwise.remote(str(tmp_path), 2) for _ in range(2)]
    for gen in gens:
        next(gen)
    ref = ray.put(1)
    never = stepwise.options(num_returns=1).remote(str(tmp_path), 0)
    assert ray.wait([*gens, ref], num_returns=3, timeout=0.1) == ([ref], gens)
    assert ray.wait([*gens, ref]) == ([ref], gens)
    go_on(tmp_path, 0)
    assert ray.wait(gens, num_returns=2, timeout=20) == (gens, [])
    with pytest.raises(ValueError, match="unique"):
        ray.wait([gens[0], gens[0]])
    with pytest.raises(TypeError, match="expected a list"):
        ray.wait(gens[0])
    go_on(tmp_path, 1)
    assert [ray.get(next(gen)) for gen in gens] == [1, 1]
    with pytest.raises(ValueError, match="Task returned 0 objects, but num_returns=1"):
        ray.get(never)


def test_async_for(tmp_path):
    async def read(gen):
        return [await ref async for ref in gen]

    async def main():
        slow = asyncio.create_task(read(stepwise.remote(str(tmp_path), 2)))
        assert await asyncio.gather(*(read(count.remote(n)) for n in range(20))) == [list(range(n)) for n in range(20)]
        assert not slow.done()
        for i in range(2):
            go_on(tmp_path, i)
        assert await slow == [0, 1]
        gen = count.remote(2)
        assert gen.__aiter__() is gen and await (await gen.__anext__()) == 0
        assert await gen.completed() is None
        assert ray.get(next(gen)) == 1
        with pytest.raises(StopAsyncIteration):
            await gen.__anext__()

    asyncio.run(main())


def test_large_and_small_items_mix():
    @ray.remote
    def mixed(n):
        for i in range(n):
            yield np.full(50_000 if i % 2 else 10, i)

    refs = list(mixed.remote(10))
    assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(10))


def test_items_hold_refs():
    @ray.remote
    def refs_of(n):
        for i in range(n):
            yield [ray.put(i), ray.put(np.full(50_000, i))]

    for i, ref in enumerate(refs_of.remote(5)):
        small, large = ray.get(ref)
        assert ray.get(small) == i and ray.get(large)[0] == i


def test_an_exception_is_the_last_item():
    gen = fail_after.remote(2)
    refs = list(gen)
    assert ray.get(refs[:2]) == [0, 1] and len(refs) == 3
    with pytest.raises(ValueError, match="that was all") as caught:
        ray.get(refs[2])
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert ray.get(gen.completed()) is None
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(gen)


def test_a_value_that_cannot_be_pickled_ends_it():
    @ray.remote(max_retries=0)
    def unpicklable():
        yield 1
        yield threading.Lock()

    first, second = unpicklable.remote()
    assert ray.get(first) == 1
    with pytest.raises(TypeError, match="cannot pickle"):
        ray.get(second)


def test_a_large_exception():
    @ray.remote(max_retries=0)
    def fails():
        yield 1
        raise ValueError("x" * 300_000)

    first, second = fails.remote()
    assert ray.get(first) == 1
    with pytest.raises(ValueError, match="x" * 1000):
        ray.get(second)


def test_a_missing_argument():
    gen = count.remote(fail_after.options(num_returns=1).remote(0))
    with pytest.raises(ValueError, match="that was all"):
        ray.get(next(gen))
    assert list(gen) == []


def test_the_death_of_the_worker_is_the_last_item():
    @ray.remote(max_retries=0)
    def dies():
        yield 1
        time.sleep(0.1)
        os._exit(1)

    gen = dies.remote()
    assert ray.get(next(gen)) == 1
    with pytest.raises(WorkerCrashedError):
        ray.get(next(gen))
    with pytest.raises(StopIteration):
        next(gen)
    with pytest.raises(WorkerCrashedError):
        ray.get(gen.completed())


@pytest.mark.parametrize("how", ["exit", "raise"])
def test_retries_go_on_where_it_was(how, tmp_path):
    @ray.remote(max_retries=2, retry_exceptions=True)
    def flaky():
        for i in range(10):
            yield (i, np.full(20_000 * (i % 2), i))
            mark = tmp_path / str(i)
            if i in (3, 7) and not mark.exists():
                time.sleep(0.1)
                mark.touch()
                if how == "exit":
                    os._exit(1)
                raise ValueError

    items = [ray.get(ref) for ref in flaky.remote()]
    assert [i for i, _ in items] == list(range(10)) and all((a == i).all() for i, a in items)


def test_a_dropped_generator_frees_what_was_not_read():
    @ray.remote
    def large(n):
        for i in range(n):
            yield np.full(100_000, i)

    before = settled()
    gen = large.remote(20)
    first = next(gen)
    ray.wait([gen.completed()])
    assert stored() >= before + 20
    del gen
    until(lambda: stored() == before + 1)
    assert int(ray.get(first)[0]) == 0
    del first
    until(lambda: stored() <= before)
    list(large.remote(10))
    until(lambda: stored() <= before)


def test_what_is_yielded_for_nobody_is_not_kept():
    @ray.remote
    def endless(log):
        yield 0
        for i in range(30):
            yield np.full(100_000, i)
        ray.get(log.add.remote("done"))

    log, before = Log.remote(), settled()
    gen = endless.options(_generator_backpressure_num_objects=1).remote(log)
    next(gen)
    del gen
    until(lambda: ray.get(log.read.remote()) == ["done"])
    until(lambda: stored() <= before)


@pytest.mark.parametrize("bound", [1, 3])
def test_a_bound_stops_the_generator(bound):
    log = Log.remote()

    @ray.remote(_generator_backpressure_num_objects=bound)
    def bounded():
        for i in range(8):
            ray.get(log.add.remote(i))
            yield i

    gen = bounded.remote()
    for taken in range(8):
        made = min(taken + bound, 8)
        until(lambda made=made: len(ray.get(log.read.remote())) == made)
        time.sleep(0.05)
        assert gen.next_ready()  # looking takes nothing
        time.sleep(0.05)
        assert len(ray.get(log.read.remote())) == made
        assert ray.get(next(gen)) == taken
    with pytest.raises(StopIteration):
        next(gen)


def test_a_generator_that_waits_lends_its_cpu(tmp_path):
    @ray.remote(num_cpus=4, _generator_backpressure_num_objects=1)
    def whole():
        yield 1
        yield 2

    @ray.remote(num_cpus=4)
    def other(x):
        return x

    assert [ray.get(other.remote(ref)) for ref in whole.remote()] == [1, 2]


def test_a_worker_that_reads_lends_its_cpu():
    @ray.remote(num_cpus=4)
    def inner():
        for i in range(3):
            time.sleep(0.02)
            yield i

    @ray.remote(num_cpus=4)
    def outer():
        return [ray.get(ref) for ref in inner.remote()]

    assert ray.get(outer.remote()) == [0, 1, 2]


def test_generators_stay_where_they_are():
    gen = count.remote(1)
    for send in (ray.put, count.remote, lambda g: count.remote([g]), pickle.dumps):
        with pytest.raises(TypeError, match="You cannot return or pass a generator"):
            send(gen)
    assert ray.get(gen) is gen
    with pytest.raises(TypeError, match="not an ray.ObjectRef"):
        ray.get([gen])
    for call in (lambda: gen.send(1), lambda: gen.throw(1), gen.close):
        with pytest.raises(NotImplementedError):
            call()

    @ray.remote
    def returns_one():
        return count.remote(1)

    with pytest.raises(TypeError, match="You cannot return or pass a generator"):
        ray.get(returns_one.remote())


def test_numbers_of_returns():
    for n in (2, 3):
        assert ray.get(count.options(num_returns=2).remote(n)) == [0, 1]
    one, missing = count.options(num_returns=2, max_retries=0).remote(1)
    assert ray.get(one) == 0
    with pytest.raises(ValueError, match="Task returned 1 objects, but num_returns=2"):
        ray.get(missing)
    assert ray.get(count.options(num_returns=1).remote(5)) == 0
    assert count.options(num_returns=0).remote(5) is None
    good, bad = fail_after.options(num_returns=2).remote(1)
    assert ray.get(good) == 0
    with pytest.raises(ValueError, match="that was all"):
        ray.get(bad)


def test_dynamic():
    ref = count.options(num_returns="dynamic").remote(3)
    assert isinstance(ref, ray.ObjectRef)
    refs = ray.get(ref)
    assert isinstance(refs, ray.DynamicObjectRefGenerator) and len(refs) == 3
    assert [ray.get(r) for r in refs] == [0, 1, 2] and len(refs) == 0
    good, bad = ray.get(fail_after.options(num_returns="dynamic").remote(1))
    assert ray.get(good) == 0
    with pytest.raises(ValueError, match="that was all"):
        ray.get(bad)

    @ray.remote
    def total(refs):
        return sum(ray.get(list(refs)))

    assert ray.get(total.remote(count.options(num_returns="dynamic").remote(5))) == 10


def test_the_client_loses_nothing_to_an_exception(tmp_path):
    gen = stepwise.remote(str(tmp_path), 3)
    assert ray.get(next(gen)) == 0
    stream, channel = gen._stream, state.client.channel()
    req = channel.request()
    stream.ask(channel, req, True, False)  # as a next that was interrupted while it waited
    state.client.box.flush()
    go_on(tmp_path, 0)
    time.sleep(0.1)
    assert ray.get(next(gen)) == 1
    go_on(tmp_path, 1)
    go_on(tmp_path, 2)
    assert [ray.get(r) for r in gen] == [2]


@pytest.mark.parametrize("n", [50_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_many_items_in_bounded_memory(n):
    def resident(pid):
        with open(f"/proc/{pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    total = 0
    gen = count.remote(n)
    for k, ref in enumerate(gen):
        total += ray.get(ref)
        if k == n // 10:
            first = resident(os.getpid())
    assert total == (n - 1) * n // 2
    assert resident(os.getpid()) < first + (20 << 10)


def test_interrupts_lose_and_leave_nothing():
    @ray.remote
    def mixed(n):
        for i in range(n):
            yield np.full(30_000 if i % 10 == 0 else 4, i)

    before = settled()
    n = 400
    with Storm(7, 0.0015) as storm:
        while storm.hits <= 50:  # a slow machine makes fewer of them in one generator's time
            seen, slipped = [], 0
            gen = mixed.remote(n)
            stream = gen._stream
            while stream.at != stream.end:
                at, got = stream.at, []
                one_call_in_c = functools.partial(got.extend, map(next, (gen,)))
                storm.attempt(one_call_in_c)
                if got:
                    seen.append(int(ray.get(got[0])[-1]))
                elif stream.at > at:
                    slipped += 1  # the interrupt came when the item was on its way out of next
            assert seen == sorted(set(seen)) and len(seen) + slipped == n
    del gen, stream, got, one_call_in_c
    until(lambda: stored() <= before)


@ray.remote(_num_objects_per_yield=2)
def pairs(n, fail=None):
    for i in range(n):
        if i == fail:
            raise ValueError(i)
        yield (i, i * 10) if i % 2 else [i, i * 10]


def test_several_objects_of_each_yield():
    assert ray.get(list(pairs.remote(3))) == [0, 0, 1, 10, 2, 20]
    refs = list(pairs.remote(3, 1))
    assert ray.get(refs[:2]) == [0, 0] and len(refs) == 3
    with pytest.raises(ValueError, match="1"):
        ray.get(refs[2])
    assert [len(list(pairs.options(**o).remote(1))) for o in ({}, {"_num_objects_per_yield": 2}, {"name": "n"})] == [
        2,
        2,
        2,
    ]
    assert ray.get(pairs.options(num_returns=1).remote(1)) == [0, 0]


@pytest.mark.parametrize("value", [(1, 2, 3), (1,), "ab", {1: 1, 2: 2}, np.arange(2), None], ids=repr)
def test_something_else_than_was_said_of_each_yield(value):
    @ray.remote(_num_objects_per_yield=2)
    def wrong():
        yield 1, 2
        yield value

    refs = list(wrong.remote())
    assert ray.get(refs[:2]) == [1, 2] and len(refs) == 3
    with pytest.raises(ValueError, match="_num_objects_per_yield=2 must yield a tuple or list of length 2"):
        ray.get(refs[2])


def test_objects_of_each_yield_are_said_once():
    text = "_num_objects_per_yield cannot be overridden per task call"
    for value in (1, 3, None):
        with pytest.raises(ValueError, match=text):
            pairs.options(_num_objects_per_yield=value)
    for value in (0, -1):
        with pytest.raises(ValueError, match="must be set to a positive integer"):
            ray.remote(_num_objects_per_yield=value)(lambda: 1)
        with pytest.raises(ValueError, match="must be set to a positive integer"):
            ray.method(_num_objects_per_yield=value)
    with pytest.raises(TypeError, match="_num_objects_per_yield"):
        ray.remote(_num_objects_per_yield=1.5)(lambda: 1)

    @ray.remote
    class Actor:
        def f(self):
            yield 1, 2

    with pytest.raises(ValueError, match="cannot be overridden per actor method call"):
        Actor.remote().f.options(_num_objects_per_yield=2).remote()


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_several_objects_of_each_yield_of_a_method(kind):
    class Plain:
        @ray.method(_num_objects_per_yield=2)
        def f(self, n):
            for i in range(n):
                yield i, -i

    class Async:
        @ray.method(_num_objects_per_yield=2)
        async def f(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i, -i

    options = {"max_concurrency": 3} if kind == "threaded" else {}
    actor = ray.remote(Async if kind == "async" else Plain).options(**options).remote()
    streams = [actor.f.remote(3) for _ in range(2)]
    assert [ray.get(list(s)) for s in streams] == [[0, 0, 1, -1, 2, -2]] * 2


def test_a_bound_counts_objects(tmp_path):
    @ray.remote(_num_objects_per_yield=2, _generator_backpressure_num_objects=4)
    def bounded():
        for i in range(10):
            (tmp_path / str(i)).touch()
            yield i, i

    stream = bounded.remote()
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    assert ray.get(next(stream)) == 0
    until(lambda: len(list(tmp_path.iterdir())) == 3)
    assert len(list(stream)) == 19
