"""Actor classes, handles and methods: what they are, how they are called, how they travel, how long they keep an actor."""

import functools
import os
import pickle
import time

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


class Base:
    def over(self):
        return "base"

    def inherited(self):
        return "inherited"


class Middle(Base):
    def over(self):
        return "middle " + super().over()


def doubled(method):
    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        return 2 * method(self, *args, **kwargs)

    return wrapper


@ray.remote
class Counter(Middle):
    """Counts."""

    step = 1

    def __init__(self, start=0, *, by=None):
        self.n = start
        self.by = by or self.step

    def add(self, k=None):
        self.n += self.by if k is None else k
        return self.n

    def over(self):
        return "counter " + super().over()

    @doubled
    def twice(self, x):
        return x

    @staticmethod
    def static(x):
        return x + 1

    @classmethod
    def of_class(cls, x):
        return cls.__name__, cls.step + x

    @ray.method(num_returns=2)
    def pair(self):
        return 1, 2

    def __call__(self, x):
        return "called", x

    def __getitem__(self, i):
        return i

    def _private(self):
        return "private"

    def pid(self):
        return os.getpid()

    shown = property(lambda self: 3)


def gone(pid, seconds=10):
    """Wait until a process is no more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def counter(shared_ray):
    return Counter.remote(10)


def test_state_and_arguments():
    a = Counter.remote()
    assert ray.get([a.add.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]
    b = Counter.remote(100, by=5)
    assert ray.get([b.add.remote(), b.add.remote(1), b.add.remote(k=ray.put(2))]) == [105, 106, 108]
    assert ray.get(a.add.remote(ray.put(10))) == 15


def test_kinds_of_methods(counter):
    assert ray.get(counter.over.remote()) == "counter middle base"
    assert ray.get(counter.inherited.remote()) == "inherited"
    assert ray.get(counter.twice.remote(4)) == 8
    assert ray.get(counter.static.remote(1)) == 2
    assert ray.get(counter.of_class.remote(1)) == ("Counter", 2)
    assert ray.get(counter.__call__.remote(1)) == ("called", 1)
    assert ray.get(counter.__getitem__.remote(2)) == 2
    assert ray.get(counter._private.remote()) == "private"


def test_number_of_results(counter):
    assert ray.get(counter.pair.remote()) == [1, 2]
    assert ray.get(counter.pair.options(num_returns=1).remote()) == (1, 2)
    assert counter.add.options(num_returns=0).remote(0) is None
    assert len(counter.static.options(num_returns=3).remote([])) == 3
    with pytest.raises(ValueError, match="num_returns must be >= 0, but got -1"):
        counter.add.options(num_returns=-1).remote()
    with pytest.raises(ValueError, match="can only be used with generator functions"):
        counter.add.options(num_returns="streaming").remote()


def test_built_in_methods(counter):
    assert ray.get(counter.__ray_ready__.remote()) is True
    assert ray.get(counter.__ray_call__.remote(lambda self, k: self.by + k, 5)) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.static.remote(), "missing a required argument: 'x'"),
        (lambda c: c.add.remote(1, 2), "too many positional arguments"),
        (lambda c: c.add.remote(z=1), "got an unexpected keyword argument 'z'"),
        (lambda c: c.add.remote(1, k=1), "multiple values for argument 'k'"),
        (lambda c: c.of_class.remote(), "missing a required argument: 'x'"),
        (lambda c: c.__ray_call__.remote(), "missing a required argument: 'fn'"),
        (lambda c: Counter.remote(1, 2), "too many positional arguments"),
        (lambda c: Counter.remote(at=1), "got an unexpected keyword argument 'at'"),
        (lambda c: Counter(), r"Actors cannot be instantiated directly. Instead of 'Counter\(\)', use 'Counter.remote"),
        (lambda c: c.add(), r"Actor methods cannot be called directly. Instead of running 'object.add\(\)', try"),
        (lambda c: c(1), "'ActorHandle' object is not callable"),
    ],
)
def test_wrong_calls(counter, call, message):
    with pytest.raises(TypeError, match=message):
        call(counter)


def test_names_of_a_handle(counter):
    assert repr(counter) == str(counter) == f"Actor(Counter, {counter._actor_id.hex()})"
    assert counter._ray_actor_id == counter._actor_id and isinstance(counter._actor_id, ray.ActorID)
    assert isinstance(counter, ray.actor.ActorHandle) and isinstance(counter.add, ray.actor.ActorMethod)
    assert {"add", "over", "inherited", "static", "_private", "__ray_ready__"} <= set(dir(counter))
    for name in ("nothing", "step", "shown", "n"):
        with pytest.raises(AttributeError, match=f"'ActorHandle' object has no attribute '{name}'"):
            getattr(counter, name)


def test_the_class():
    assert isinstance(Counter, ray.actor.ActorClass)
    assert Counter.step == 1 and callable(Counter.add)
    assert Counter.__ray_actor_class__.__name__ == "Counter"
    assert issubclass(Counter.__ray_metadata__.modified_class, Base)
    with pytest.raises(ray.actor.ActorClassInheritanceException, match="Inheriting from actor classes is not"):

        class Derived(Counter):
            pass


def test_equality(counter):
    other = Counter.remote()
    again = pickle.loads(pickle.dumps(counter))
    assert counter == again and hash(counter) == hash(again) and counter != other and counter != 1
    assert len({counter, again, other}) == 2


@ray.remote
def add_in_task(handle, k):
    return ray.get(handle.add.remote(k))


@ray.remote
class Holder:
    def hold(self, handles):
        self.handle = handles[0]

    def add(self):
        return ray.get(self.handle.add.remote())

    def give(self):
        return self.handle

    def drop(self):
        del self.handle


def test_handles_travel():
    c = Counter.remote()
    assert ray.get(add_in_task.remote(c, 1)) == 1
    assert ray.get(ray.get(ray.put(c)).add.remote()) == 2
    assert ray.get(ray.get(ray.put({"a": [c]}))["a"][0].add.remote()) == 3

    @ray.remote
    def closure():
        return ray.get(c.add.remote()), c

    four, back = ray.get(closure.remote())
    assert four == 4 and back == c
    holder = Holder.remote()
    ray.get(holder.hold.remote([c]))
    assert ray.get(holder.add.remote()) == 5
    assert ray.get(ray.get(holder.give.remote()).add.remote()) == 6
    assert ray.get(ray.cloudpickle.loads(ray.cloudpickle.dumps(c)).add.remote()) == 7


def test_methods_travel():
    @ray.remote
    def call(method, *args):
        return ray.get(method.remote(*args))

    c = Counter.remote()
    assert ray.get(call.remote(c.add)) == 1
    assert ray.get(call.remote(c.add.options(name="by five"), 5)) == 6
    pid, method = ray.get(c.pid.remote()), c.add
    kept = ray.put([method])
    del c, method
    assert ray.get(ray.get(kept)[0].remote()) == 7  # it keeps the actor as a handle does
    del kept
    assert gone(pid)


def test_an_actor_goes_with_its_last_handle():
    c = Counter.remote()
    pid = ray.get(c.pid.remote())
    last = c.add.remote()
    del c
    assert ray.get(last) == 1
    assert gone(pid)


def test_other_handles_keep_an_actor():
    c = Counter.remote()
    pid = ray.get(c.pid.remote())
    holder = Holder.remote()
    ray.get(holder.hold.remote([c]))
    kept = ray.put([c])
    method = c.add
    del c
    ray.get(holder.drop.remote())
    assert ray.get(method.remote()) == 1
    del method
    assert not gone(pid, 0.3)
    again = ray.get(kept)[0]
    del kept
    assert ray.get(again.add.remote()) == 2
    del again
    assert gone(pid)


def test_actors_make_actors():
    @ray.remote
    class Parent:
        def __init__(self):
            self.child = Counter.remote(5)

        def ask(self):
            return ray.get(self.child.add.remote())

        def make(self):
            return Counter.remote(7)

    parent = Parent.remote()
    assert ray.get(parent.ask.remote()) == 6
    child = ray.get(parent.make.remote())
    assert ray.get(child.add.remote()) == 8


def test_an_actor_class_in_a_task():
    @ray.remote
    def make(cls):
        return ray.get(cls.remote(1).add.remote()), ray.get(Counter.options(num_cpus=0).remote(2).add.remote())

    assert ray.get(make.remote(Counter)) == (2, 3)


def test_large_and_many_arguments(counter):
    assert ray.get(counter.static.remote(1)) == 2
    echo = Holder.remote()
    value = b"x" * 300_000
    assert ray.get(echo.__ray_call__.remote(lambda self, v: len(v), value)) == len(value)
    assert ray.get(echo.__ray_call__.remote(lambda self, *a: len(a), *[ray.put(i) for i in range(50)])) == 50
    big = ray.get(echo.__ray_call__.remote(lambda self: b"y" * 300_000))
    assert len(big) == 300_000


def test_an_attribute_does_not_hide_a_method():
    @ray.remote
    class Hides:
        def __init__(self):
            self.seen = [1]
            self.total = 5

        def seen(self):
            return self.seen

        @staticmethod
        def total():
            return 7

    hides = Hides.remote()
    assert ray.get([hides.seen.remote(), hides.total.remote()]) == [[1], 7]


def test_invocation_decorator():
    def backwards(invoke):
        return lambda args, kwargs: (invoke(args[::-1], kwargs), "more")

    class Pair:
        def pair(self, a, b):
            return a, b

    Pair.pair.__ray_invocation_decorator__ = backwards
    p = ray.remote(Pair).remote()
    for handle in (p, ray.get(ray.put(p))):
        ref, more = handle.pair.remote(1, 2)
        assert ray.get(ref) == (2, 1) and more == "more"
