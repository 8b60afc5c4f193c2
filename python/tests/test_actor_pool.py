"""``ray.util.ActorPool``, ``as_completed`` and ``map_unordered``."""

import itertools
import time

import pytest

import ray
from ray._common.test_utils import SignalActor
from ray.util import ActorPool, as_completed, map_unordered

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote(num_cpus=0)
class Doubler:
    def double(self, x):
        return 2 * x

    def after(self, seconds, x):
        time.sleep(seconds)
        return x

    def picky(self, x):
        if x == 1:
            raise KeyError(x)
        return x

    def both(self, x):
        return x, -x


def double(actor, x):
    return actor.double.remote(x)


def after(actor, call):
    return actor.after.remote(*call)


@pytest.fixture(scope="module")
def actors(shared_ray):
    return [Doubler.remote() for _ in range(2)]


@pytest.fixture
def pool(actors):
    return ActorPool(actors)


def test_map_is_in_order(pool):
    assert list(pool.map(double, range(6))) == [0, 2, 4, 6, 8, 10]
    assert list(pool.map(after, [(0.2, "slow"), (0, "quick")])) == ["slow", "quick"]


def test_map_unordered(pool):
    assert sorted(pool.map_unordered(double, range(6))) == [0, 2, 4, 6, 8, 10]
    assert list(pool.map_unordered(after, [(0.5, "slow"), (0, "quick"), (0, "next")])) == ["quick", "next", "slow"]


def test_map_submits_at_once(pool):
    given = []
    results = pool.map(double, (given.append(i) or i for i in range(5)))
    assert given == [0, 1, 2, 3, 4]
    assert next(results) == 0


def test_map_forgets_earlier_work(pool):
    for i in range(5):
        pool.submit(double, 100 + i)
    assert list(pool.map(double, range(3))) == [0, 2, 4]
    pool.submit(double, 100)
    assert sorted(pool.map_unordered(double, range(3))) == [0, 2, 4]


def test_get_next(pool):
    assert not pool.has_next() and pool.has_free()
    for i in range(4):
        pool.submit(double, i)
    assert pool.has_next() and not pool.has_free()
    assert [pool.get_next() for _ in range(4)] == [0, 2, 4, 6]
    assert not pool.has_next() and pool.has_free()
    for get in (pool.get_next, pool.get_next_unordered):
        with pytest.raises(StopIteration):
            get()


def test_get_next_after_unordered(pool):
    pool.submit(after, (0.3, "slow"))
    pool.submit(after, (0, "quick"))
    assert pool.get_next_unordered() == "quick"
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    assert pool.get_next_unordered() == "slow"


@pytest.mark.parametrize("get", ["get_next", "get_next_unordered"])
def test_timeouts(pool, get):
    get = getattr(pool, get)
    pool.submit(after, (0.3, "late"))
    with pytest.raises(TimeoutError):
        get(timeout=0.02)
    assert get(timeout=30) == "late"
    pool.submit(after, (0.3, "later"))
    with pytest.raises(TimeoutError, match="ignored"):
        get(timeout=0.02, ignore_if_timedout=True)
    assert not pool.has_next() and pool.has_free()


def test_errors_do_not_cost_actors(pool):
    results = pool.map(lambda actor, x: actor.picky.remote(x), range(3))
    assert next(results) == 0
    with pytest.raises(KeyError):
        next(results)
    assert list(pool.map(double, [1, 2])) == [2, 4]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, x: 1 / 0, 0)
    assert pool.pop_idle() is not None and pool.pop_idle() is not None


def test_push_and_pop(actors):
    pool = ActorPool(actors[:1])
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actors[0])
    pool.submit(double, 1)
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actors[0])
    pool.submit(double, 2)
    pool.push(actors[1])  # takes the one that waits
    assert not pool.has_free()
    assert [pool.get_next(), pool.get_next()] == [2, 4]
    assert {pool.pop_idle(), pool.pop_idle()} == set(actors)
    assert pool.pop_idle() is None and not pool.has_free()


def test_an_empty_pool_waits_for_its_first_actor(actors):
    pool = ActorPool([])
    pool.submit(double, 3)
    assert not pool.has_next()
    pool.push(actors[0])
    assert pool.get_next() == 6


def test_several_returns(pool):
    def both(actor, x):
        return actor.both.options(num_returns=2).remote(x)

    assert list(pool.map(both, range(3))) == [[0, 0], [1, -1], [2, -2]]
    assert sorted(pool.map_unordered(both, range(3))) == [[0, 0], [1, -1], [2, -2]]


def test_as_completed():
    signal = SignalActor.remote()
    values = as_completed([signal.wait.remote(), ray.put("quick")], chunk_size=1)
    assert next(values) == "quick"
    signal.send.remote()
    assert list(values) == [None]
    slow = signal.wait.remote()
    assert list(as_completed([slow, ray.put("quick")], chunk_size=2)) == [None, "quick"]
    refs = [ray.put(1), ray.put(2)]
    assert set(as_completed(iter(refs), yield_obj_refs=True)) == set(refs)
    assert list(as_completed([])) == []
    with pytest.raises(ValueError, match="chunk_size"):
        list(as_completed(refs, chunk_size=0))
    with pytest.raises(ValueError, match="num_returns"):
        list(as_completed(refs, num_returns=1))


@ray.remote(num_cpus=0)
def identity(x):
    return x


def test_map_unordered_goes_no_further_than_it_may():
    taken = itertools.count()
    results = map_unordered(identity, (i for i in taken), backpressure_size=3, chunk_size=1)  # endless
    assert len({next(results) for _ in range(10)}) == 10
    assert next(taken) == 12
    results.close()


def test_map_unordered_of_a_method(actors):
    assert sorted(map_unordered(actors[0].double, range(5), backpressure_size=None)) == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="backpressure_size"):
        list(map_unordered(actors[0].double, [1], backpressure_size=0))
