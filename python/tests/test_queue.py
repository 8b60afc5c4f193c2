"""``ray.util.queue.Queue``."""

import asyncio
import queue
import threading

import pytest

import ray
from ray.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture
def two():
    """A queue with room for two items."""
    made = Queue(maxsize=2)
    yield made
    made.shutdown(force=True)


def test_first_in_first_out(two):
    assert (len(two), two.empty(), two.full()) == (0, True, False)
    two.put("a")
    two.put(None)
    assert (two.size(), two.qsize(), two.empty(), two.full()) == (2, 2, False, True)
    assert [two.get(), two.get()] == ["a", None]


@pytest.mark.parametrize("wait", [{"block": False}, {"timeout": 0}, {"timeout": 0.05}])
def test_full_and_empty(two, wait):
    with pytest.raises(Empty) as empty:
        two.get(**wait)
    assert isinstance(empty.value, queue.Empty) and type(empty.value) is Empty  # no RayTaskError
    two.put_nowait_batch([1, 2])
    with pytest.raises(Full) as full:
        two.put(3, **wait)
    assert isinstance(full.value, queue.Full) and type(full.value) is Full
    assert two.get_nowait_batch(2) == [1, 2]


def test_nowait(two):
    with pytest.raises(Empty):
        two.get_nowait()
    two.put_nowait(1)
    two.put_nowait(2)
    with pytest.raises(Full):
        two.put_nowait(3)
    assert two.get_nowait() == 1


def test_batches_are_whole_or_nothing(two):
    with pytest.raises(Full, match="3 items"):
        two.put_nowait_batch([1, 2, 3])
    assert two.qsize() == 0
    two.put_nowait_batch(i for i in (1, 2))
    with pytest.raises(Empty, match="3 items"):
        two.get_nowait_batch(3)
    assert two.get_nowait_batch(0) == []
    assert two.get_nowait_batch(2) == [1, 2]
    many = Queue()
    many.put_nowait_batch(range(100))
    assert many.get_nowait_batch(100) == list(range(100))


def test_arguments(two):
    for call in (lambda: two.put(1, timeout=-1), lambda: two.get(timeout=-1), lambda: two.get_nowait_batch(-1)):
        with pytest.raises(ValueError, match="non-?negative"):
            call()
    with pytest.raises(TypeError, match="int"):
        two.get_nowait_batch(1.0)
    with pytest.raises(TypeError, match="Iterable"):
        two.put_nowait_batch(1)


def test_coroutines(two):
    async def main():
        await two.put_async(1)
        await two.put_async(2)
        with pytest.raises(Full):
            await two.put_async(3, block=False)
        with pytest.raises(Full):
            await two.put_async(3, timeout=0.05)
        assert [await two.get_async(), await two.get_async(block=False)] == [1, 2]
        with pytest.raises(Empty):
            await two.get_async(timeout=0.05)
        with pytest.raises(ValueError):
            await two.get_async(timeout=-1)
        got = asyncio.ensure_future(two.get_async())
        await asyncio.sleep(0.05)
        await two.put_async("late")
        assert await got == "late"

    asyncio.run(main())


def test_those_who_wait_are_served(two):
    @ray.remote(num_cpus=0)
    def take(q):
        return q.get()

    refs = [take.remote(two) for _ in range(3)]
    assert ray.wait(refs, timeout=0.2)[0] == []
    for i in range(3):
        two.put(i)
    assert sorted(ray.get(refs, timeout=30)) == [0, 1, 2]

    two.put_nowait_batch([1, 2])
    threads = [threading.Thread(target=two.put, args=(i,)) for i in (3, 4)]
    for t in threads:
        t.start()
    got = [two.get(timeout=30) for _ in range(4)]
    for t in threads:
        t.join()
    assert got[:2] == [1, 2] and sorted(got) == [1, 2, 3, 4]


def test_items_may_be_refs_and_functions():
    q = Queue()
    ref = ray.put("inner")
    q.put([ref])
    q.put(lambda: 5)
    assert ray.get(q.get()[0]) == "inner"
    assert q.get()() == 5


def test_a_queue_travels(two):
    @ray.remote(num_cpus=0)
    def fill(q):
        q.put("from afar")
        return q

    back = ray.get(fill.remote(two))
    assert (back.maxsize, back.actor) == (2, two.actor)
    assert back.get() == "from afar"
    back.put("again")
    assert two.get() == "again"


def test_options_of_the_actor():
    q = Queue(actor_options={"name": "a queue", "num_cpus": 0})
    assert ray.get_actor("a queue") == q.actor
    q.shutdown(force=True)
    with pytest.raises(ValueError):
        Queue(actor_options={"no such": 1})


def test_shutdown():
    @ray.remote(num_cpus=0)
    def take(q):
        return q.get()

    q = Queue()
    waiting = take.remote(q)
    assert ray.wait([waiting], timeout=0.3)[0] == []
    q.shutdown(grace_period_s=1)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(waiting, timeout=30)
    q.shutdown()  # again: nothing happens
    with pytest.raises(AttributeError):
        q.put(1)
