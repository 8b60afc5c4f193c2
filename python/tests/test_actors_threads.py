"""Threaded actors and concurrency groups."""

import asyncio
import os
import sys
import tempfile
import threading
import time

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote(max_concurrency=3)
class Threaded:
    def __init__(self):
        self.barrier = threading.Barrier(3)
        self.main = threading.get_ident()

    def meet(self):
        self.barrier.wait(20)
        return threading.get_ident()

    def context(self):
        self.barrier.wait(20)
        time.sleep(0.01)
        context = ray.get_runtime_context()
        return context.get_task_id(), context.get_task_name(), context.get_actor_id()

    def fail(self):
        raise ValueError("t")

    def get(self, refs):
        return ray.get(refs[0])

    def canceled(self):
        for _ in range(2000):
            if ray.get_runtime_context().is_canceled():
                return "seen"
            time.sleep(0.01)
        return "not seen"


def test_as_many_at_once_as_said():
    t = Threaded.remote()
    assert len(set(ray.get([t.meet.remote() for _ in range(3)], timeout=30))) == 3
    refs = [t.context.remote() for _ in range(3)]
    for ref, (task_id, name, actor_id) in zip(refs, ray.get(refs)):
        assert task_id == ref.task_id().hex() and name == "Threaded.context" and actor_id == t._actor_id.hex()


def test_threads_get_and_fail():
    t = Threaded.remote()
    assert ray.get([t.get.remote([ray.put(i)]) for i in range(10)]) == list(range(10))
    with pytest.raises(ValueError, match="t"):
        ray.get(t.fail.remote())


def test_is_canceled_in_a_thread():
    t = Threaded.remote()
    ref = t.canceled.remote()
    ray.wait([ref], timeout=0.3)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=20)


def test_cancel_in_a_plain_actor():
    @ray.remote
    class Plain:
        def canceled(self, path):
            open(path, "w").close()
            for _ in range(2000):
                if ray.get_runtime_context().is_canceled():
                    return "seen"
                time.sleep(0.01)
            return "not seen"

        def ran(self, path):
            return os.path.exists(path)

    with tempfile.TemporaryDirectory() as folder:
        first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
        plain = Plain.remote()
        running, waiting = plain.canceled.remote(first), plain.canceled.remote(second)
        while not os.path.exists(first):
            time.sleep(0.01)
        for ref in (waiting, running):
            ray.cancel(ref)
        for ref in (running, waiting):
            with pytest.raises(ray.exceptions.TaskCancelledError, match="was cancelled"):
                ray.get(ref, timeout=20)
        assert ray.get(plain.ran.remote(first)) and not ray.get(plain.ran.remote(second))


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Groups:
    def __init__(self):
        self.go = threading.Event()
        self.log = []

    @ray.method(concurrency_group="io")
    def io(self):
        return self.go.wait(20)

    @ray.method(concurrency_group="compute")
    def compute(self, i):
        self.log.append(i)
        return threading.get_ident()

    def plain(self):
        return threading.get_ident()

    def get_log(self):
        return self.log

    def release(self):
        self.go.set()


def test_a_group_that_is_busy_does_not_hold_up_others():
    g = Groups.remote()
    busy = [g.io.remote() for _ in range(3)]
    threads = ray.get([g.compute.remote(i) for i in range(20)], timeout=20)
    assert len(set(threads)) == 1
    assert ray.get(g.get_log.remote(), timeout=20) == list(range(20))
    assert ray.get(g.plain.options(concurrency_group="compute").remote(), timeout=20) == threads[0]
    assert ray.wait(busy, num_returns=3, timeout=0.1)[0] == []
    g.release.remote()
    assert ray.get(busy, timeout=20) == [True] * 3


def test_groups_of_an_async_actor():
    @ray.remote(concurrency_groups={"io": 2, "compute": 4})
    class Async:
        @ray.method(concurrency_group="io")
        async def io(self):
            await asyncio.sleep(0.01)
            return threading.get_ident()

        @ray.method(concurrency_group="compute")
        async def compute(self):
            return threading.get_ident()

        async def plain(self):
            return threading.get_ident()

        @ray.method(concurrency_group="io")
        async def block(self):
            time.sleep(0.5)  # noqa: ASYNC251
            return time.monotonic()

    a = Async.remote()
    names = [a.io, a.compute, a.plain]
    idents = [ray.get([m.remote() for _ in range(5)]) for m in names]
    assert all(len(set(i)) == 1 for i in idents) and len({i[0] for i in idents}) == 3
    blocked = a.block.remote()
    assert ray.get(a.plain.remote(), timeout=20) and ray.get(blocked, timeout=20)


def test_method_of_a_threaded_actor_that_ends_before_others():
    @ray.remote(max_concurrency=2)
    class Two:
        def __init__(self):
            self.event = threading.Event()

        def wait(self):
            return self.event.wait(20)

        def set(self):
            self.event.set()

    two = Two.remote()
    first = two.wait.remote()
    ray.get(two.set.remote(), timeout=20)
    assert ray.get(first, timeout=20)


def test_the_group_of_the_system(tmp_path):
    """Its calls run beside the main thread's, in actors of all kinds."""

    class Plain:
        def until(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return threading.current_thread() is threading.main_thread()

        def ping(self):
            return threading.current_thread() is threading.main_thread()

        def leave(self):
            sys.exit(3)

    class Async(Plain):
        async def more(self):
            pass

    for n, (cls, on_main) in enumerate(((Plain, True), (Async, True))):
        go = str(tmp_path / f"go{n}")
        actor = ray.remote(cls).remote()
        beside = actor.until.options(concurrency_group="_ray_system").remote(go)
        assert ray.get([actor.ping.remote() for _ in range(3)]) == [on_main] * 3
        second = actor.ping.options(concurrency_group="_ray_system").remote()
        assert ray.wait([beside, second], timeout=0.1)[0] == []  # one at a time
        open(go, "w").close()
        assert ray.get([beside, second]) == [False, False]
    actor = ray.remote(Plain).remote()
    with pytest.raises(ray.exceptions.RayActorError, match="exit code 3"):
        ray.get(actor.leave.options(concurrency_group="_ray_system").remote())
    with pytest.raises(ValueError, match="is not defined"):
        actor.ping.options(concurrency_group="other").remote()
