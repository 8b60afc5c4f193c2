"""ray.cancel of tasks: where they wait, where they run, what they have called; nothing leaks and the workers go on."""

import asyncio
import os
import signal
import threading
import time

import pytest

import ray
from ray.exceptions import RayTaskError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("shared_ray")


def until(true, seconds=60):
    """Wait until something holds, and fail if it never does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.fixture
def here(tmp_path):
    """Names of files by which tasks tell the test what they do."""
    return lambda name: str(tmp_path / name)


def mark(path):
    open(path, "a").close()


@ray.remote
def busy(path, *_):
    """Python code that runs until it is interrupted."""
    mark(path)
    while True:
        time.sleep(0.01)


def running(here, name="runs", **options):
    ref = busy.options(**options).remote(here(name))
    until(lambda: os.path.exists(here(name)))
    return ref


def all_free():
    until(lambda: ray.available_resources().get("CPU") == 4)


# what runs


def test_a_task_that_runs_is_interrupted(here):
    ref = running(here, max_retries=5, retry_exceptions=True)
    assert ray.cancel(ref) is None
    with pytest.raises(TaskCancelledError) as e:
        ray.get(ref, timeout=30)
    assert isinstance(e.value, RayTaskError)  # with the place where it was
    assert "in busy" in str(e.value) and "was cancelled" in str(e.value)
    assert e.value.cause.task_id == ref.task_id()
    all_free()


def test_what_the_task_makes_of_it_counts(here):
    @ray.remote
    def catches(path, then):
        try:
            mark(path)
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            if then:
                raise ValueError("instead") from None
            return "cleaned up", ray.get_runtime_context().is_canceled()

    kept = catches.remote(here("a"), False)
    until(lambda: os.path.exists(here("a")))
    ray.cancel(kept)
    assert ray.get(kept, timeout=30) == ("cleaned up", True)
    other = catches.options(max_retries=3, retry_exceptions=True).remote(here("b"), True)
    until(lambda: os.path.exists(here("b")))
    ray.cancel(other)
    with pytest.raises(ValueError, match="instead"):
        ray.get(other, timeout=30)


@pytest.mark.parametrize("how", ["get", "wait", "sleep", "lock", "loop", "items"])
def test_whatever_it_waits_in(here, how):
    """One long call, which nothing but the interrupt ends."""

    @ray.remote
    def waits(path, refs):
        mark(path)
        if how == "get":
            ray.get(refs)
        elif how == "wait":
            ray.wait(refs)
        elif how == "sleep":
            time.sleep(3600)
        elif how == "lock":
            threading.Event().wait()
        elif how == "items":
            next(endless.remote(refs[0]))
        else:
            asyncio.run(asyncio.sleep(3600))

    @ray.remote(num_returns="streaming")
    def endless(ref):
        yield ref

    never = busy.options(resources={"nobody has this": 1}).remote(here("never"))
    ref = waits.remote(here("waits"), [never])
    until(lambda: os.path.exists(here("waits")))
    if how == "items":
        ray.cancel(ref)  # its child waits for a value that never comes; both end
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    ray.cancel(never)
    all_free()


def test_its_worker_runs_the_next_task(here):
    ref = running(here)
    pid = [w for w in workers() if w[1] == "busy"][0][0]
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref)

    @ray.remote
    def who():
        return os.getpid()

    until(lambda: pid in ray.get([who.remote() for _ in range(8)]))


def workers():
    """Pid and title of this cluster's workers."""
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as f:
                title = f.read().split("\0")[0]
        except OSError:
            continue
        if title.startswith("ray::"):
            out.append((int(pid), title[5:]))
    return out


def test_many_that_are_short():
    """Cancels that come before, while and after the tasks run: each ends, none takes another with it."""

    @ray.remote
    def short(i):
        return i

    for _ in range(5):
        refs = [short.remote(i) for i in range(300)]
        for ref in refs[::2]:
            ray.cancel(ref)
        for i, ref in enumerate(refs):
            try:
                assert ray.get(ref, timeout=60) == i
            except TaskCancelledError:
                assert i % 2 == 0
    all_free()


def test_while_arguments_are_unpickled(here):
    class Slow:
        def __init__(self, path):
            self.path = path

        def __reduce__(self):
            return slowly, (self.path,)

    def slowly(path):
        mark(path)
        time.sleep(3600)

    ref = busy.remote(here("runs"), Slow(here("unpickles")))
    until(lambda: os.path.exists(here("unpickles")))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    assert not os.path.exists(here("runs"))


def test_the_handler_of_the_program(here):
    @ray.remote
    def own_handler(path):
        got = []
        before = signal.signal(signal.SIGINT, lambda *a: got.append(a[0]))
        mark(path)
        while not got:
            time.sleep(0.01)
        signal.signal(signal.SIGINT, before)
        return got

    ref = own_handler.remote(here("runs"))
    until(lambda: os.path.exists(here("runs")))
    ray.cancel(ref)
    assert ray.get(ref, timeout=30) == [signal.SIGINT]


# by force


def test_force_kills_the_worker(here):
    @ray.remote(max_retries=5)
    def deaf(path):
        with open(path, "a") as f:
            f.write(f"{os.getpid()}\n")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        mark(path + ".deaf")
        while True:
            time.sleep(0.01)

    ref = deaf.remote(here("pid"))
    until(lambda: os.path.exists(here("pid.deaf")))
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(ref, timeout=0.3)
    ray.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError, match="was cancelled"):
        ray.get(ref, timeout=30)
    pids = open(here("pid")).read().split()
    assert len(pids) == 1  # no second attempt
    until(lambda: not os.path.exists("/proc/" + pids[0]))
    all_free()


# what waits


def test_tasks_that_wait(here):
    never = busy.options(resources={"nobody has this": 1}).remote(here("never"))
    on_argument = busy.remote(here("a"), never)
    on_that = busy.remote(here("b"), on_argument)
    two = busy.options(num_returns=2, num_cpus=99).remote(here("c"))
    ray.cancel(on_argument)
    with pytest.raises(TaskCancelledError):
        ray.get(on_argument, timeout=30)
    with pytest.raises(TaskCancelledError):
        ray.get(on_that, timeout=30)  # it fails with its argument
    ray.cancel(two[1], force=True)
    for ref in two:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=30)
    ray.cancel(never)
    with pytest.raises(TaskCancelledError):
        ray.get(never, timeout=30)
    assert not any(os.path.exists(here(n)) for n in "abc")
    all_free()


def test_what_is_no_task_or_has_ended():
    @ray.remote
    def one():
        return 1

    put, done = ray.put(5), one.remote()
    assert ray.get(done) == 1
    for ref in (put, done):
        ray.cancel(ref, force=True)
    assert ray.get([put, done]) == [5, 1]
    for bad in (1, None, "x", [done]):
        with pytest.raises(TypeError, match="only supported for object refs"):
            ray.cancel(bad)


# generators


def test_generators(here):
    @ray.remote(num_returns="streaming", max_retries=4, retry_exceptions=True)
    def counts(path):
        yield 0
        mark(path)
        while True:
            time.sleep(0.01)

    for k, by_item in enumerate((False, True)):
        gen = counts.remote(here(str(k)))
        first = next(gen)
        until(lambda k=k: os.path.exists(here(str(k))))
        ray.cancel(first if by_item else gen)
        assert ray.get(first) == 0
        with pytest.raises(TaskCancelledError):
            ray.get(next(gen))
        with pytest.raises(StopIteration):
            next(gen)
    queued = counts.options(num_cpus=99).remote(here("queued"))
    ray.cancel(queued)
    with pytest.raises(TaskCancelledError):
        ray.get(next(queued))
    with pytest.raises(StopIteration):
        next(queued)
    all_free()


def test_a_generator_that_waits_for_its_reader(here):
    @ray.remote(num_returns="streaming", _generator_backpressure_num_objects=1)
    def bounded(path):
        for i in range(100):
            mark(f"{path}{i}")
            yield i

    gen = bounded.remote(here("item"))
    until(lambda: os.path.exists(here("item0")))
    ray.cancel(gen)
    got = []
    with pytest.raises(TaskCancelledError):
        for ref in gen:
            got.append(ray.get(ref))
    assert len(got) < 100
    all_free()


# what a task has called


@ray.remote(num_cpus=0)
class Recorder:
    """An async actor whose calls tell what became of them."""

    async def hold(self, path):
        mark(path)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            mark(path + ".cancelled")
            raise

    async def here(self):
        return True


@pytest.mark.parametrize("recursive", [True, False])
def test_three_levels_and_an_actor(here, recursive):
    @ray.remote
    def level(n, path, actor):
        if n == 2:
            held = actor.hold.remote(path + "call")
            mark(path + "2")
            ray.get(held)
            return
        try:
            ray.get(level.remote(n + 1, path, actor))
        except KeyboardInterrupt:
            mark(path + str(n) + ".interrupted")
            raise

    actor = Recorder.remote()
    top = level.remote(0, here("t"), actor)
    until(lambda: os.path.exists(here("tcall")))
    ray.cancel(top, recursive=recursive)
    with pytest.raises(TaskCancelledError):
        ray.get(top, timeout=30)
    if recursive:
        until(lambda: os.path.exists(here("tcall.cancelled")))
        until(lambda: os.path.exists(here("t1.interrupted")))
        all_free()
    else:
        assert ray.get(actor.here.remote())
        assert not os.path.exists(here("tcall.cancelled"))
        assert not os.path.exists(here("t1.interrupted"))
        ray.kill(actor)
        all_free()


def test_what_an_interrupted_task_calls_to_clean_up(here):
    """The cancellation is over when the task has learnt of it."""

    @ray.remote
    def cleaned():
        return "cleaned"

    @ray.remote
    def careful(path):
        try:
            ray.get(busy.remote(path))
        except KeyboardInterrupt:
            return ray.get([cleaned.remote(), cleaned.remote()])

    ref = careful.remote(here("child"))
    until(lambda: os.path.exists(here("child")))
    ray.cancel(ref)
    assert ray.get(ref, timeout=30) == ["cleaned", "cleaned"]
    all_free()


@pytest.mark.parametrize("kept", [False, True])
def test_children_of_a_task_whose_process_dies(here, kept):
    """Those that run end with it, unless somebody else has their result."""

    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def value(self):
            return ray.get(self.refs[0])

    @ray.remote(max_retries=-1)
    def child(path):
        with open(path + ".new", "w") as f:
            f.write(str(os.getpid()))
        os.rename(path + ".new", path)
        until(lambda: os.path.exists(path + ".end"))
        return "ended by itself"

    @ray.remote(max_retries=0)
    def dies(path, keeper):
        ref = child.remote(path)
        if keeper is not None:
            ray.get(keeper.keep.remote([ref]))
        until(lambda: os.path.exists(path))
        os._exit(1)

    keeper = Keeper.options(num_cpus=0).remote() if kept else None
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(dies.remote(here("child"), keeper), timeout=30)
    with open(here("child")) as f:
        pid = int(f.read())
    if kept:
        mark(here("child.end"))
        assert ray.get(keeper.value.remote(), timeout=30) == "ended by itself"
    else:
        until(lambda: not os.path.exists(f"/proc/{pid}"))
    all_free()


@pytest.mark.parametrize("kind", ["async", "threads"])
def test_only_the_children_of_the_call_that_is_cancelled(here, kind):
    if kind == "async":

        @ray.remote(num_cpus=0)
        class Parent:
            async def call(self, path):
                await busy.options(num_cpus=1).remote(path)
    else:

        @ray.remote(num_cpus=0, max_concurrency=4)
        class Parent:
            def call(self, path):
                ray.get(busy.options(num_cpus=1).remote(path))

    parent = Parent.remote()
    calls = [parent.call.remote(here(n)) for n in "ab"]
    until(lambda: all(os.path.exists(here(n)) for n in "ab"))
    ray.cancel(calls[0])
    with pytest.raises(TaskCancelledError):
        ray.get(calls[0], timeout=30)
    until(lambda: ray.available_resources().get("CPU") == 3)
    assert ray.wait([calls[1]], timeout=0)[0] == []
    ray.cancel(calls[1])
    with pytest.raises(TaskCancelledError):
        ray.get(calls[1], timeout=30)
    all_free()


def test_a_ref_that_was_passed_on(here):
    @ray.remote
    def cancels(refs):
        ray.cancel(refs[0])

    ref = running(here)
    ray.get(cancels.remote([ref]))
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    all_free()


@pytest.mark.parametrize("how", ["returns", "raises", "cleans up"])
def test_whatever_a_coroutine_makes_of_it(here, how):
    @ray.remote
    class Stubborn:
        async def hold(self, path):
            try:
                mark(path)
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if how == "cleans up":
                    await asyncio.sleep(0.01)
                if how == "raises":
                    raise ValueError(how) from None
                return how
            finally:
                mark(path + "-ended")

    a = Stubborn.remote()
    r = a.hold.remote(here("began"))
    until(lambda: os.path.exists(here("began")))
    ray.cancel(r)
    with pytest.raises(TaskCancelledError):
        ray.get(r, timeout=60)
    assert os.path.exists(here("began-ended"))
