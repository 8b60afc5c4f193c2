"""Async actors: coroutines side by side, cancelling them, and what blocks them."""

import asyncio
import threading
import time

import pytest

import ray
from ray.exceptions import TaskCancelledError

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
class Signal:
    """Lets others wait."""

    def __init__(self):
        self.event = asyncio.Event()
        self.waiting = 0

    async def wait(self):
        self.waiting += 1
        try:
            await self.event.wait()
        finally:
            self.waiting -= 1
        return "sent"

    async def how_many(self):
        return self.waiting

    def send(self):
        self.event.set()


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thousand_at_once():
    signal = Signal.remote()
    refs = [signal.wait.remote() for _ in range(900)]
    until(lambda: ray.get(signal.how_many.remote()) == 900)
    ray.get(signal.send.remote())
    assert ray.get(refs) == ["sent"] * 900


def test_one_thread_and_one_loop():
    @ray.remote
    class Where:
        def __init__(self):
            self.loop = asyncio.get_running_loop()
            self.thread = threading.get_ident()

        async def coroutine(self):
            await asyncio.sleep(0)
            return self.loop is asyncio.get_running_loop(), threading.get_ident() == self.thread

        def plain(self):
            return self.loop is asyncio.get_running_loop(), threading.get_ident() == self.thread

    where = Where.remote()
    refs = [m.remote() for _ in range(20) for m in (where.coroutine, where.plain)]
    assert set(ray.get(refs)) == {(True, True)}


def test_max_concurrency():
    @ray.remote(max_concurrency=2)
    class Two:
        def __init__(self):
            self.now = self.most = 0

        async def run(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.02)
            self.now -= 1
            return self.most

    two = Two.remote()
    assert max(ray.get([two.run.remote() for _ in range(10)])) == 2
    one = Two.options(max_concurrency=1).remote()
    assert max(ray.get([one.run.remote() for _ in range(5)])) == 1


@ray.remote
class Awaiter:
    async def one(self, refs):
        return await refs[0]

    async def gather(self, refs):
        return await asyncio.gather(*refs)

    async def twice(self, refs):
        return [await refs[0], await refs[0]]

    async def future(self, refs):
        return await asyncio.wrap_future(refs[0].future())

    async def caught(self, refs):
        try:
            await refs[0]
        except ValueError as e:
            return f"caught {e}"

    async def call(self, other):
        return await other.one.remote([ray.put(5)])

    async def wait(self, refs):
        done, pending = await asyncio.wait([asyncio.ensure_future(_value(r)) for r in refs])
        return sorted(d.result() for d in done), len(pending)


async def _value(ref):
    return await ref


@ray.remote
def slow(x):
    time.sleep(0.05)
    return x


@ray.remote
def failing():
    raise ValueError("no")


def test_await():
    a, b = Awaiter.remote(), Awaiter.remote()
    assert ray.get(a.one.remote([slow.remote(1)])) == 1
    assert ray.get(a.gather.remote([slow.remote(i) for i in range(4)])) == [0, 1, 2, 3]
    assert ray.get(a.twice.remote([slow.remote(2)])) == [2, 2]
    assert ray.get(a.future.remote([slow.remote(3)])) == 3
    assert ray.get(a.caught.remote([failing.remote()])).startswith("caught")
    assert ray.get(a.call.remote(b)) == 5
    assert ray.get(a.wait.remote([slow.remote(i) for i in range(3)])) == ([0, 1, 2], 0)


def test_await_in_the_driver():
    a = Awaiter.remote()

    async def main():
        return await asyncio.gather(*[a.one.remote([ray.put(i)]) for i in range(10)])

    assert asyncio.run(main()) == list(range(10))


@ray.remote
class Sleeper:
    def __init__(self):
        self.log = []

    async def sleep(self, seconds):
        self.log.append("started")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        return "slept"

    async def stubborn(self):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "stayed"

    async def get_log(self):
        return self.log


def test_cancel_of_a_coroutine():
    s = Sleeper.remote()
    ref = s.sleep.remote(100)
    until(lambda: ray.get(s.get_log.remote()) == ["started"])
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    assert ray.get(s.get_log.remote()) == ["started", "cancelled"]
    ray.cancel(ref)  # nothing happens to what has ended
    done = s.sleep.remote(0)
    assert ray.get(done) == "slept"
    ray.cancel(done)
    assert ray.get(done) == "slept"


def test_cancel_of_a_call_that_waits():
    s = Sleeper.options(max_concurrency=1).remote()
    first, second, third = s.sleep.remote(0.5), s.sleep.remote(100), s.get_log.remote()
    ray.cancel(second)
    with pytest.raises(TaskCancelledError):
        ray.get(second, timeout=20)
    assert ray.get(first) == "slept" and "cancelled" not in ray.get(third)


def test_cancel_with_force_is_refused():
    s = Sleeper.remote()
    with pytest.raises(ValueError, match="force=True is not supported for actor tasks."):
        ray.cancel(s.sleep.remote(0), force=True)


def test_errors_of_coroutines():
    @ray.remote
    class Bad:
        async def raises(self):
            raise KeyError("k")

        async def from_get(self, refs):
            return await refs[0]

        def plain(self):
            raise IndexError(3)

    bad = Bad.remote()
    with pytest.raises(KeyError):
        ray.get(bad.raises.remote())
    with pytest.raises(IndexError):
        ray.get(bad.plain.remote())
    with pytest.raises(ValueError, match="no"):
        ray.get(bad.from_get.remote([failing.remote()]))
    with pytest.raises(ray.exceptions.RayTaskError) as e:
        ray.get(bad.raises.remote())
    assert "Bad.raises()" in str(e.value) and "in raises" in str(e.value)


def test_blocking_get_in_a_coroutine():
    @ray.remote
    class Blocks:
        async def get(self, refs):
            return ray.get(refs[0])

        async def wait(self, refs):
            return len(ray.wait(refs)[0])

    b = Blocks.remote()
    assert ray.get(b.get.remote([slow.remote(1)])) == 1
    assert ray.get(b.wait.remote([slow.remote(1)])) == 1


def test_context_of_coroutines():
    @ray.remote
    class Context:
        async def ids(self):
            before = ray.get_runtime_context().get_task_id()
            await asyncio.sleep(0.01)
            in_task = await asyncio.create_task(self.inner())
            return before, ray.get_runtime_context().get_task_id(), in_task

        async def inner(self):
            await asyncio.sleep(0)
            return ray.get_runtime_context().get_task_id()

        async def name(self):
            await asyncio.sleep(0)
            return ray.get_runtime_context().get_task_name()

    c = Context.remote()
    refs = [c.ids.remote() for _ in range(10)]
    for ref, (before, after, inner) in zip(refs, ray.get(refs)):
        assert before == after == inner == ref.task_id().hex()
    assert ray.get([c.name.remote(), c.name.options(name="n").remote()]) == ["Context.name", "n"]


def test_the_warning_names_the_line():
    @ray.remote
    class Warned:
        def __init__(self):
            import logging

            self.seen = []
            handler = logging.Handler()
            handler.emit = lambda record: self.seen.append(record.getMessage())
            logging.getLogger("ray").addHandler(handler)

        async def block(self, refs):
            for ref in refs:
                ray.get(ref)
            return self.seen

    w = Warned.remote()
    refs = [ray.put(i) for i in range(3)]
    said, *_ = ray.get(w.block.remote(refs))
    assert "Using blocking ray.get inside async actor" in said and "await ref" in said
    assert f"{__file__}:" in said


def test_a_constructor_that_is_a_coroutine():
    class Slow:
        async def __init__(self, x):
            self.name = ray.get_runtime_context().get_task_name()
            await asyncio.sleep(0.01)
            self.loop = asyncio.get_running_loop()
            self.x = await x[0]
            if self.x < 0:
                raise ValueError(self.x)
            if self.x == 0:
                ray.actor.exit_actor()

        def seen(self):
            return self.x, self.name, self.loop is asyncio.get_running_loop()

    actor = ray.remote(Slow)
    a = actor.remote([ray.put(3)])
    assert ray.get([a.seen.remote(), a.seen.remote()]) == [(3, "Slow.__init__", True)] * 2
    with pytest.raises(ray.exceptions.ActorDiedError, match="ValueError: -1") as e:
        ray.get(actor.remote([ray.put(-1)]).seen.remote())
    assert e.value.actor_init_failed
    with pytest.raises(ray.exceptions.ActorDiedError, match="INTENDED_USER_EXIT"):
        ray.get(actor.remote([ray.put(0)]).seen.remote())
