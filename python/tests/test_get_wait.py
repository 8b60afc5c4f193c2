"""What ray.get and ray.wait take and refuse, and the other ways to wait for a ref."""

import asyncio
import concurrent.futures
import threading

import pytest

import ray
from ray.exceptions import GetTimeoutError, RayTaskError


@ray.remote(num_cpus=0)
class Gate:
    """What its methods return waits until it is opened."""

    opened = None

    def event(self):
        # made by a coroutine: Python 3.9 ties it to the loop that runs where it is made
        self.opened = self.opened or asyncio.Event()
        return self.opened

    async def open(self):
        self.event().set()

    async def wait(self, value=None):
        await self.event().wait()
        return value


@ray.remote
def fail(kind=ValueError):
    raise kind("no")


@pytest.fixture
def gate(shared_ray):
    actor = Gate.remote()
    yield actor
    ray.get(actor.open.remote())


@pytest.mark.parametrize("refs", [None, 1, "a", {1}, {}, (), b"x", object, (x for x in ()), range(2)], ids=repr)
def test_get_refuses(shared_ray, refs):
    with pytest.raises(
        ValueError, match="Invalid type of object refs, <class .*>, is given. 'object_refs' must either be"
    ):
        ray.get(refs)


@pytest.mark.parametrize("item", [None, 2, [1], "a"], ids=repr)
def test_get_refuses_items(shared_ray, item):
    with pytest.raises(TypeError, match="Attempting to call `get` on the value .*, which is not an ray.ObjectRef"):
        ray.get([ray.put(1), item])


def test_get_takes(shared_ray):
    class Refs(list):
        pass

    one = ray.put(1)
    assert ray.get([]) == [] and ray.get([one, one, one]) == [1, 1, 1] and ray.get(Refs([one])) == [1]
    assert ray.get(object_refs=one) == 1
    with pytest.raises(TypeError):
        ray.get(one, 5)
    for timeout in (0, -1, None, 1, 0.5, True):
        assert ray.get(one, timeout=timeout) == 1


def test_get_in_time(shared_ray, gate):
    late = gate.wait.remote(5)
    for timeout in (0, 0.01):
        for refs in (late, [late], [ray.put(1), late]):
            with pytest.raises(GetTimeoutError, match=r"Get timed out: some object\(s\) not ready"):
                ray.get(refs, timeout=timeout)
    with pytest.raises(ValueError, match="no"):
        ray.get([late, fail.remote()])
    ray.get(gate.open.remote())
    assert ray.get([late, late], timeout=-1) == [5, 5]


def test_the_first_of_several_errors(shared_ray):
    a, b = fail.remote(KeyError), fail.remote(ValueError)
    assert ray.wait([a, b], num_returns=2) == ([a, b], [])
    with pytest.raises(KeyError):
        ray.get([a, b])
    with pytest.raises(ValueError, match="no"):
        ray.get([b, a])


@pytest.mark.parametrize("refs", [None, 1, "a", {}, (), {1}, b"x", (x for x in ())], ids=repr)
def test_wait_refuses(shared_ray, refs):
    with pytest.raises(TypeError, match=r"wait\(\) expected a list of ray.ObjectRef.*, got <class"):
        ray.wait(refs)


def test_wait_refuses_numbers_and_items(shared_ray):
    refs = [ray.put(i) for i in range(3)]
    for item in (None, 1, [refs[0]]):
        with pytest.raises(TypeError, match="got list containing <class"):
            ray.wait([refs[0], item])
    with pytest.raises(TypeError, match="got a single ray.ObjectRef"):
        ray.wait(refs[0])
    with pytest.raises(ValueError, match="list of unique ray_waitables"):
        ray.wait([refs[0], refs[0]])
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"Invalid number of objects to return {number}"):
            ray.wait(refs, num_returns=number)
    with pytest.raises(ValueError, match="num_returns cannot be greater than the number of ray_waitables"):
        ray.wait(refs, num_returns=4)
    for timeout in (-1, -0.1):
        with pytest.raises(ValueError, match=f"'timeout' argument must be nonnegative. Received {timeout}"):
            ray.wait(refs, timeout=timeout)
    with pytest.raises(ValueError, match="nonnegative"):
        ray.wait([], timeout=-1)
    assert ray.wait([]) == ray.wait([], num_returns=5) == ([], [])
    for number in (1.0, 1.5, True):
        assert ray.wait(refs, num_returns=number) == (refs[:1], refs[1:])
    nan = float("nan")
    for wait in (lambda: ray.wait(refs, timeout=nan), lambda: ray.get(refs, timeout=nan)):
        with pytest.raises(ValueError, match="number of seconds"):
            wait()
    assert len(ray.wait(refs, num_returns=3, timeout=float("inf"))[0]) == len(ray.get(refs, timeout=float("inf"))) == 3


def test_wait_keeps_the_order(shared_ray, gate):
    late, refs = gate.wait.remote(), [ray.put(i) for i in range(4)]
    mixed = [refs[0], late, *refs[1:]]
    for fetch_local in (True, False):
        assert ray.wait(mixed, num_returns=3, fetch_local=fetch_local) == (refs[:3], [late, refs[3]])
        assert ray.wait(mixed, num_returns=5, timeout=0, fetch_local=fetch_local) == (refs, [late])


def test_100_000_refs(shared_ray):
    refs = [ray.put(i) for i in range(100_000)]
    assert ray.get(refs) == list(range(100_000))
    assert ray.wait(refs, num_returns=100_000) == (refs, [])
    assert ray.wait(refs, num_returns=99_999, timeout=0) == (refs[:-1], refs[-1:])


def test_futures(shared_ray, gate):
    done, late, failed = ray.put(5).future(), gate.wait.remote(3).future(), fail.remote().future()
    assert isinstance(done, concurrent.futures.Future) and done.result(20) == 5 and done.exception() is None
    with pytest.raises(RayTaskError, match="no"):
        failed.result(20)
    with pytest.raises(concurrent.futures.TimeoutError):
        late.result(0.01)
    called = threading.Event()
    late.add_done_callback(lambda f: called.set())
    given_up = gate.wait.remote().future()
    assert given_up.cancel() and given_up.cancelled()
    ray.get(gate.open.remote())
    assert called.wait(20) and late.result() == 3
    some = [ray.put(i).future() for i in range(3)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(some, timeout=20)) == [0, 1, 2]


def test_asyncio(shared_ray, gate):
    async def main():
        late = gate.wait.remote(4)
        assert await ray.put(5) == 5
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(late, 0.01)
        task = asyncio.ensure_future(late)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="no"):
            await fail.remote()
        await gate.open.remote()
        assert [await late, await late] == [4, 4]
        assert await asyncio.gather(*[ray.put(i) for i in range(3)]) == [0, 1, 2]
        mixed = await asyncio.gather(late, fail.remote(), return_exceptions=True)
        assert mixed[0] == 4 and isinstance(mixed[1], RayTaskError)
        assert sorted([await f for f in asyncio.as_completed([ray.put(i) for i in range(3)])]) == [0, 1, 2]
        done, _ = await asyncio.wait([asyncio.wrap_future(ray.put(i).future()) for i in range(2)])
        assert sorted(f.result() for f in done) == [0, 1]

    asyncio.run(main())


def test_refs_as_names(shared_ray):
    ref = ray.put(1)
    assert repr(ref) == f"ObjectRef({ref.hex()})" and str(ray.ObjectRef[int]) == "ray.ObjectRef[int]"
    assert (
        ray.ObjectRef(ref.binary()) is ref and isinstance(ref.owner_address(), bytes) and ref.tensor_transport() is None
    )
    assert ref != 1 and ref and len({ref, ray.ObjectRef(ref.binary())}) == 1
    for call in (lambda: ref.anything, lambda: setattr(ref, "x", 1)):
        with pytest.raises(AttributeError):
            call()
    for call in (lambda: len(ref), lambda: iter(ref), lambda: ref[0], lambda: ref + 1):
        with pytest.raises(TypeError):
            call()
