"""``ray.util.multiprocessing.Pool``."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

import ray
from ray._common.test_utils import wait_for_condition
from ray.util.multiprocessing import JoinableQueue, Pool, TimeoutError

pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture(scope="module")
def pool(shared_ray):
    with Pool(2) as made:
        yield made


def square(x):
    return x * x


def pair(a, b=0):
    return a, b


def picky(x):
    if x == 3:
        raise KeyError(x)
    return x


def pid(_=None):
    return os.getpid()


def die(_=None):
    os._exit(1)


def test_apply(pool):
    assert pool.apply(square, (3,)) == 9
    assert pool.apply(pair, [1], {"b": 2}) == (1, 2)
    assert pool.apply(pair, iter([1, 2])) == (1, 2)
    assert pool.apply(pid) != os.getpid()
    bound = 5
    assert pool.apply(lambda x: x + bound, (1,)) == 6


def test_errors_say_where(pool):
    with pytest.raises(KeyError) as e:
        pool.apply(picky, (3,))
    assert e.value.args == (3,)
    assert "in picky" in str(e.value.__cause__)
    with pytest.raises(TypeError):
        pool.apply(5)
    with pytest.raises(TypeError):
        pool.apply(square, (threading.Lock(),))

    class Odd(Exception):
        def __init__(self, a, b):  # can't be unpickled
            super().__init__(a)

    def fail():
        raise Odd(1, 2)

    with pytest.raises(RuntimeError, match="Odd"):
        pool.apply(fail)


def test_map(pool):
    assert pool.map(square, range(10)) == [x * x for x in range(10)]
    assert pool.map(square, iter(range(10)), chunksize=3) == [x * x for x in range(10)]
    assert pool.map(square, []) == []
    assert pool.starmap(pair, [(1, 2), (3, 4)]) == [(1, 2), (3, 4)]
    assert pool.starmap(pair, zip("ab", "cd"), chunksize=1) == [("a", "c"), ("b", "d")]
    with pytest.raises(KeyError):
        pool.map(picky, range(6), chunksize=1)
    with pytest.raises(TypeError):
        pool.map(square, 5)
    with pytest.raises(ValueError, match="Chunksize"):
        pool.map(square, [1], chunksize=0)


def test_both_processes_work_and_the_idle_one_first(pool):
    assert len(set(pool.map(pid, range(8), chunksize=1))) == 2
    start = time.monotonic()
    pool.map(time.sleep, [0.6] + [0.06] * 8, chunksize=1)
    assert time.monotonic() - start < 1.0  # 0.6 beside 8 * 0.06


def test_async_result(pool):
    slow = pool.apply_async(time.sleep, (0.3,))
    assert not slow.ready()
    with pytest.raises(ValueError, match="not ready"):
        slow.successful()
    with pytest.raises(TimeoutError):
        slow.get(timeout=0.01)
    assert TimeoutError is multiprocessing.TimeoutError
    slow.wait(0.01)
    assert not slow.ready()
    slow.wait()
    assert slow.ready() and slow.successful() and slow.get() is None
    failed = pool.map_async(picky, range(5))
    failed.wait()
    assert failed.ready() and not failed.successful()
    with pytest.raises(KeyError):
        failed.get()


def test_callbacks(pool):
    calls = []

    def error(e):
        calls.append((type(e.underlying), isinstance(e, Exception)))

    both = {"callback": calls.append, "error_callback": error}
    pool.apply_async(square, (2,), **both).wait()  # the callback comes first
    pool.map_async(square, range(4), chunksize=1, **both).wait()
    pool.map_async(square, [], **both).wait()
    pool.starmap_async(pair, [(1, 2)], **both).wait()
    pool.map_async(picky, range(6), chunksize=1, **both).wait()
    assert calls == [4, [0, 1, 4, 9], [], [(1, 2)], (KeyError, True)]


def test_callbacks_may_use_the_pool_and_may_fail(pool):
    got = []
    pool.apply_async(square, (2,), callback=lambda x: got.append(pool.apply(square, (x,)))).wait()
    assert got == [16]
    assert pool.apply_async(square, (2,), callback=lambda x: 1 / 0).get() == 4
    pool.apply_async(square, (2,), callback=got.append).wait()
    assert got == [16, 4]


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap(pool, chunksize):
    results = pool.imap(picky, range(6), chunksize=chunksize)
    assert iter(results) is results
    values = list(results)
    assert values[:3] + values[4:] == [0, 1, 2, 4, 5]
    assert isinstance(values[3], Exception) and isinstance(values[3].underlying, KeyError)
    with pytest.raises(StopIteration):
        next(results)
    assert sorted(pool.imap_unordered(square, range(20), chunksize=chunksize)) == [x * x for x in range(20)]


def test_imap_waits_for_the_next(pool):
    def nap(seconds):
        time.sleep(seconds)
        return seconds

    ordered = pool.imap(nap, [0.4, 0.0])
    with pytest.raises(TimeoutError):
        ordered.next(timeout=0.01)
    assert list(ordered) == [0.4, 0.0]
    unordered = pool.imap_unordered(nap, [0.4, 0.0])
    assert unordered.next(timeout=30) == 0.0
    with pytest.raises(TimeoutError):
        unordered.next(timeout=0.01)
    assert unordered.next() == 0.4


def test_imap_takes_items_as_they_are_needed(pool):
    taken = []
    results = pool.imap(square, (taken.append(i) or i for i in range(1000)))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) == 3 + 4  # twice as many as processes are ahead


def test_imap_of_an_iterable_that_fails(pool):
    def items(n):
        yield from range(n)
        raise OSError("no more")

    for n in (2, 20):
        results = pool.imap(square, items(n))
        assert [next(results) for _ in range(n)] == [x * x for x in range(n)]
        with pytest.raises(OSError, match="no more"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
    with pytest.raises(TypeError):
        pool.imap(square, 5)
    with pytest.raises(TypeError):
        pool.imap_unordered(square, 5)


def test_a_process_that_died_is_replaced():
    with Pool(1) as pool:
        first = pool.apply(pid)
        with pytest.raises(ray.exceptions.RayActorError):
            pool.apply(die)
        assert pool.map(square, range(3)) == [0, 1, 4]
        with pytest.raises(ray.exceptions.RayActorError):
            pool.apply(sys.exit, (3,))
        assert pool.apply(pid) not in (first, os.getpid())


def test_initializer():
    def initialize(a, b):
        os.environ["OF_THE_POOL"] = a + b

    with Pool(2, initializer=initialize, initargs=["a", "b"]) as pool:
        assert pool.map(lambda _: os.environ["OF_THE_POOL"], range(4), chunksize=1) == ["ab"] * 4

    def fail():
        raise ValueError("not today")

    with pytest.raises(ray.exceptions.RayActorError, match="not today"):
        Pool(1, initializer=fail)


def test_maxtasksperchild():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(pid) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert len(set(pool.map(pid, range(8), chunksize=4))) == 1
    with pytest.raises(ValueError, match="maxtasksperchild"):
        Pool(1, maxtasksperchild=0)


def test_close_and_join_finish_everything():
    pool = Pool(2)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    got = []
    results = [pool.apply_async(time.sleep, (0.05,), callback=got.append) for _ in range(6)]
    items = pool.imap(square, range(50))
    pids = set(pool.map(pid, range(8), chunksize=1))
    pool.close()
    pool.close()
    for call in (lambda: pool.apply(pid), lambda: pool.map(pid, []), lambda: pool.imap(pid, []), pool.__enter__):
        with pytest.raises(ValueError, match="not running"):
            call()
    pool.join()
    assert len(got) == 6 and all(r.ready() for r in results)
    assert list(items) == [x * x for x in range(50)]
    wait_for_condition(lambda: not any(map(alive, pids)))
    pool.join()
    pool.terminate()


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_terminate_fails_what_is_not_done():
    pool = Pool(2)
    results = pool.map_async(time.sleep, [60] * 8, chunksize=1)
    items = pool.imap(time.sleep, [60] * 8)
    pool.terminate()
    pool.join()
    with pytest.raises(ray.exceptions.RayActorError):
        results.get(timeout=30)
    assert [isinstance(x, ray.exceptions.RayActorError) for x in items] == [True] * 8
    with pytest.raises(ValueError, match="not running"):
        pool.apply(pid)


def test_a_forgotten_pool_ends_but_not_before_its_results():
    assert Pool(1).apply_async(square, (3,)).get(timeout=60) == 9
    assert list(Pool(1).imap(square, range(30))) == [x * x for x in range(30)]
    process = Pool(1).apply(pid)
    wait_for_condition(lambda: not alive(process), timeout=30)


def test_pools_within_pools():
    def outer(n):
        with Pool(1) as inner:
            return sum(inner.map(square, range(n)))

    with Pool(2) as pool:
        assert pool.map(outer, [3, 4]) == [5, 14]


def test_sizes():
    cpus = int(ray.cluster_resources()["CPU"])
    with pytest.raises(ValueError, match=f"only {cpus} CPUs"):
        Pool(cpus + 1)
    with pytest.raises(ValueError, match="must be >0"):
        Pool(0)
    with pytest.raises(TypeError):
        Pool(1.5)


def test_remote_args():
    def resources():
        return ray.get_runtime_context().get_assigned_resources()

    with Pool(1, ray_remote_args={"num_cpus": 0.5}) as pool:
        assert pool.apply(resources)["CPU"] == 0.5


def test_joinable_queue():
    q = JoinableQueue()
    q.put(1)
    assert q.get() == 1
    q.task_done()
    q.join()


@pytest.mark.parametrize("how", ["alone", "environment", "argument"])
def test_connecting(shared_ray, how):
    address = shared_ray.address_info["address"]
    code = f"""
import ray
from ray.util.multiprocessing import Pool
with Pool(3, ray_address={address!r} if {how!r} == "argument" else None) as pool:
    print(sum(pool.map(abs, [-1, 2])), int(ray.cluster_resources()["CPU"]))
"""
    env = dict(os.environ)
    if how == "environment":
        env["RAY_ADDRESS"] = address
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["3", "3" if how == "alone" else "4"]
