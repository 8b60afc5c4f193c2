"""Values that travel: through ray.put, as an argument and as a result."""

import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import logging
import os
import pickle
import re
import sys
import threading
import types
import typing

import numpy as np
import pytest

import ray
from ray.exceptions import RaySystemError, RayTaskError

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
def same(x):
    return x


def both(x):
    """The value as ray.put hands it out, and as a task hands it back."""
    return ray.get(ray.put(x)), ray.get(same.remote(x))


@dataclasses.dataclass
class Data:
    a: int
    b: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


Pair = collections.namedtuple("Pair", "a b")


class Typed(typing.NamedTuple):
    a: int
    b: str = "q"


class Numbers(list):
    pass


class Reduced:
    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return type(other) is Reduced and other.n == self.n

    def __reduce__(self):
        return Reduced, (self.n,)


VALUES = [
    None,
    True,
    10**100,
    float("inf"),
    1 + 2j,
    "héllo\ud800",
    b"ab",
    bytearray(b"ab"),
    [[{1: (2, {3})}]],
    frozenset([1]),
    range(3),
    slice(1, 2),
    ...,
    NotImplemented,
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    decimal.Decimal("1.1"),
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    collections.deque([1], maxlen=3),
    Data(1, [2]),
    Frozen(1),
    Colour.BLUE,
    Bits.ONE | Bits.TWO,
    Pair(1, 2),
    Typed(1),
    Numbers([1]),
    Reduced(3),
    types.SimpleNamespace(a=1),
    re.compile("a+"),
    int,
    len,
    os,
    Data,
    type(None),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values(value):
    for back in both(value):
        assert back == value and type(back) is type(value)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes(kind):
    value = kind(os.urandom(3_000_000))
    for back in both(value):
        assert type(back) is kind and back == value


def test_memoryviews_travel_as_bytes():
    for size in (3, 3_000_000):
        assert both(memoryview(b"x" * size)) == (b"x" * size, b"x" * size)


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_buffers_of_a_users_class_go_out_of_band(size):
    class Box:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Box, (pickle.PickleBuffer(self.data),)

    for back in both(Box(bytearray(b"x" * size))):
        assert memoryview(back.data).readonly and bytes(back.data) == b"x" * size
    for back in both([pickle.PickleBuffer(b"y" * size)]):
        assert memoryview(back[0]).readonly and bytes(back[0]) == b"y" * size


def test_cycles_and_what_is_shared():
    ring = [1]
    ring.append(ring)
    table = {}
    table["self"] = table
    a = types.SimpleNamespace()
    a.b = types.SimpleNamespace(a=a)
    for back in both([ring, table, a, a]):
        assert back[0][1] is back[0] and back[1]["self"] is back[1] and back[2].b.a is back[2] and back[2] is back[3]


def test_what_is_too_deep_says_so():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(pickle.PicklingError, match="deep recursion"):
        ray.put(deep)
    with pytest.raises(pickle.PicklingError, match="deep recursion"):
        same.remote(deep)


def test_functions_and_local_classes():
    offset = 10

    def fact(n):
        return 1 if n < 2 else n * fact(n - 1)

    class Base:
        def f(self):
            return 1

    class Local(Base):
        limit = 5

        def f(self):
            return super().f() + offset

        @property
        def p(self):
            return self.limit

        @classmethod
        def name(cls):
            return cls.__name__

    for back in both((lambda x: x + offset, fact, Local(), functools.partial(fact, 4))):
        assert back[0](1) == 11 and back[1](5) == 120 and back[2].f() == 11 and back[2].p == 5 and back[3]() == 24
        assert back[2].name() == "Local" and type(back[2]) is Local


DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16", "S3", "U3", "M8[s]"]
DTYPES += ["m8[ns]", ">i4", "V4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    array = np.arange(6).astype("i8").reshape(3, 2)
    array = np.zeros((3, 2), dtype) if dtype in ("V4", "S3", "U3") else array.astype(dtype)
    for back in both(array):
        assert back.dtype == array.dtype and back.shape == (3, 2) and back.tobytes() == array.tobytes()
        assert back.flags.writeable is (array.dtype.kind in "Mm")  # numpy pickles times by value


def test_layouts():
    rows = np.arange(6.0).reshape(2, 3)
    for array in (
        np.asfortranarray(rows),
        np.asfortranarray(np.arange(600_000.0).reshape(2, -1)),
        np.arange(20)[::2],
        np.arange(5)[::-1],
        np.broadcast_to(np.arange(3), (4, 3)),
        np.zeros((0, 3)),
        np.zeros(()),
        np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
        np.array([(1, "a", 2.5)], dtype=[("x", "i4"), ("y", "U3"), ("z", "f8")]),
        np.rec.array([(1, 2.0)], names="a,b"),
    ):
        for back in both(array):
            assert type(back) is type(array) and back.shape == array.shape and back.tolist() == array.tolist()
            assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous


def test_arrays_of_objects_are_copies():
    for back in both(np.array([{"a": 1}, [2], None], dtype=object)):
        assert back.tolist() == [{"a": 1}, [2], None]
        back[0] = 5


def test_a_subclass_of_array():
    class Marked(np.ndarray):
        pass

    for back in both(np.zeros(3).view(Marked)):
        assert type(back).__name__ == "Marked"


def test_large_arrays_are_views_of_one_memory():
    ref = ray.put({"a": np.arange(1_000_000)})
    one, other = ray.get(ref)["a"], ray.get(ref)["a"]
    assert one.ctypes.data == other.ctypes.data and one.ctypes.data % 64 == 0
    del ref
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        one[0] = 1
    assert int(one.sum()) == 499_999_500_000


def test_numpy_scalars_and_generators():
    values = [np.float64(1.5), np.int32(3), np.bool_(True), np.datetime64("2020-01-01"), np.str_("a")]
    for back in both(values):
        assert [type(v) for v in back] == [type(v) for v in values] and back == values
    assert ray.get(ray.put(np.random.default_rng(0))).integers(100) == np.random.default_rng(0).integers(100)


def test_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(
        {"a": np.arange(200_000), "b": ["x", "y"] * 100_000, "c": pandas.Categorical(["u", "v"] * 100_000)}
    )
    for back in both(frame):
        pandas.testing.assert_frame_equal(back, frame)


def test_pyarrow():
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pyarrow.table({"a": list(range(100_000)), "b": ["x"] * 100_000, "n": [None, 1] * 50_000})
    before = pyarrow.total_allocated_bytes()
    back = ray.get(ray.put(table))
    assert back.equals(table) and pyarrow.total_allocated_bytes() == before  # views of the store
    assert ray.get(same.remote(table)).equals(table)


def test_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.arange(100_000, dtype=torch.float32).reshape(100, -1)
    for back in both({"t": tensor, "grad": torch.ones(2, requires_grad=True)}):
        assert torch.equal(back["t"], tensor) and back["grad"].requires_grad
        back["t"] += 1  # tensors are copies


class Locked:
    def __init__(self, n):
        self.n = n
        self.lock = threading.Lock()


class MoreLocked(Locked):
    pass


def test_serializers_of_ones_own():
    with pytest.raises(TypeError, match="Could not serialize the put value"):
        ray.put(Locked(1))
    ray.util.register_serializer(Locked, serializer=lambda o: o.n, deserializer=lambda n: Locked(n + 1))
    try:
        assert ray.get(ray.put({"in": [Locked(7)]}))["in"][0].n == 8

        @ray.remote
        def number(x):
            return x.n, "lock" in vars(x)

        assert ray.get(number.remote(Locked(5))) == (6, True)  # the worker needs nothing registered
        with pytest.raises(TypeError, match="lock"):
            ray.put(MoreLocked(1))
    finally:
        ray.util.deregister_serializer(Locked)
    ray.util.deregister_serializer(Locked)
    with pytest.raises(TypeError, match="Could not serialize"):
        ray.put(Locked(1))


def test_copyreg():
    class Doubled:
        n = 4

    copyreg.pickle(Doubled, lambda o: (int, (o.n * 2,)))
    assert both(Doubled()) == (8, 8)


@pytest.mark.parametrize(
    "make",
    [threading.Lock, lambda: (x for x in ()), sys._getframe, threading.Thread],
    ids=["lock", "generator", "frame", "thread"],
)
def test_what_cannot_be_pickled_is_named(make):
    with pytest.raises(TypeError, match="(?s)Could not serialize the put value .*FAIL serialization"):
        ray.put([make()])
    with pytest.raises(TypeError, match="(?s)Could not serialize the argument .* for a task or actor .*same"):
        same.remote({"a": make()})


def test_inspect_serializability():
    lock = threading.Lock()

    class Holder:
        def __init__(self):
            self.fine = 1
            self.lock = lock

    def inner():
        return lock

    def outer():
        return inner()

    def found(value, **more):
        out = io.StringIO()
        fine, failures = ray.util.inspect_serializability(value, print_file=out, **more)
        assert "Checking Serializability of" in out.getvalue() and fine == (not failures)
        assert fine or "was found to be non-serializable" in out.getvalue()
        return {(f.path, f.obj is lock) for f in failures}

    assert found(5) == set()
    assert found(lock) == {((), True)}
    assert found(Holder()) == {(("lock",), True)}
    assert found({"a": [lock]}) == {(("a", "[0]"), True)}
    assert found(outer, name="main") == {(("main", "inner", "lock"), True)}
    assert found(outer, depth=1) == {(("inner",), False)}


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return broken, ()


def broken():
    raise KeyError("no way back")


def test_a_value_that_cannot_be_rebuilt():
    ref = ray.put([Unreadable()])
    for wait in (ray.get, lambda r: ray.get([r]), lambda r: r.future().result(20)):
        with pytest.raises(RaySystemError, match="(?s)System error: 'no way back'.*in broken") as e:
            wait(ref)
        assert isinstance(e.value.__cause__, KeyError)

    @ray.remote(retry_exceptions=True)
    def make():
        return Unreadable()

    with pytest.raises(RaySystemError, match="no way back"):
        ray.get(make.remote())
    for call in (lambda: same.remote(Unreadable()), lambda: same.remote(ref), lambda: same.remote(make.remote())):
        with pytest.raises(RaySystemError, match="At least one of the input arguments .* could not be computed") as e:
            ray.get(call())
        assert isinstance(e.value, RayTaskError)


def test_refs_and_actors_in_values():
    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    captured, actor = ray.put(30), Counter.remote()

    @ray.remote
    def use(box, default=captured):
        return ray.get(captured), ray.get(box.ref), ray.get(box.actor.add.remote()), ray.get(default)

    assert ray.get(use.remote(types.SimpleNamespace(ref=ray.put(9), actor=actor))) == (30, 9, 1, 30)
    ref = ray.put(1)
    for _ in range(10):
        ref = ray.put([ref])
    for _ in range(10):
        ref = ray.get(ref)[0]
    assert ray.get(ref) == 1
    back = ray.get(ray.put([actor]))[0]
    assert back == actor and hash(back) == hash(actor) and ray.get(back.add.remote()) == 2


def test_refs_out_of_band():
    ref = ray.put(6)
    data = ray.cloudpickle.dumps(ref)
    del ref
    assert ray.get(ray.cloudpickle.loads(data)) == 6
    assert ray.get(pickle.loads(pickle.dumps(ray.put(7)))) == 7


def test_sizes_of_functions(caplog, monkeypatch):
    block = np.zeros(11 << 20, np.uint8)
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)

    @ray.remote
    def large():
        return block.size

    with caplog.at_level("WARNING", logger="ray"):
        assert ray.get(large.remote()) == 11 << 20
    assert re.search(r"The remote function .*large is very large \(11 MiB\)", caplog.text)
    monkeypatch.setenv("FUNCTION_SIZE_ERROR_THRESHOLD", str(5 << 20))

    @ray.remote
    class Huge:
        def size(self):
            return block.size

    with pytest.raises(
        ValueError, match=r"Huge is too large \(11 MiB > FUNCTION_SIZE_ERROR_THRESHOLD=5 MiB\).*ray.put"
    ):
        Huge.remote()


def test_cloudpickle():
    out = io.BytesIO()
    ray.cloudpickle.dump({"a": lambda: 3}, out)
    assert ray.cloudpickle.loads(out.getvalue())["a"]() == 3
    with pytest.raises(TypeError, match="FAIL serialization"):
        ray.cloudpickle.dumps_debug(threading.Lock())


class Awkward(Exception):
    """An error that pickle can't handle."""

    def __init__(self, a, *, b):
        super().__init__(a)
        self.a, self.b, self.lock = a, b, threading.Lock()


def register_awkward():
    ray.util.register_serializer(
        Awkward, serializer=lambda e: (e.a, e.b), deserializer=lambda ab: Awkward(ab[0], b=ab[1])
    )


def test_a_registered_serializer_of_an_error():
    @ray.remote(max_calls=1)
    def task():
        register_awkward()
        raise Awkward(1, b=2)

    register_awkward()
    try:
        with pytest.raises(Awkward) as e:
            ray.get(task.remote())
        assert (e.value.a, e.value.b, type(e.value.cause)) == (1, 2, Awkward)
        data = ray.cloudpickle.dumps([Awkward(3, b=4)])
        file = io.BytesIO()
        ray.cloudpickle.dump(Awkward(5, b=6), file)
    finally:
        ray.util.deregister_serializer(Awkward)
    assert ray.cloudpickle.loads(data)[0].b == 4 and ray.cloudpickle.loads(file.getvalue()).b == 6
    with pytest.raises(TypeError):
        ray.cloudpickle.dumps(Awkward(3, b=4))
