"""What is raised in actors, and how it is shown."""

import re

import pytest

import ray
from ray.exceptions import ActorDiedError, RayTaskError

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
class Bad:
    def __init__(self, how=None):
        if how == "raise":
            raise ValueError("in the constructor")
        self.how = how

    def fail(self):
        raise ZeroDivisionError("here")

    def call(self, refs):
        return ray.get(refs[0])

    def take(self, x):
        return x

    def unpicklable(self):
        import threading

        return threading.Lock()

    def __repr__(self):
        return f"Bad({self.how})"


@ray.remote
def failing():
    raise ZeroDivisionError("zz")


def text_of(error):
    return re.sub(r"\x1b\[\d+m", "", str(error))


def test_a_method_raises():
    a = Bad.remote("x")
    with pytest.raises(ZeroDivisionError) as e:
        ray.get(a.fail.remote())
    assert isinstance(e.value, RayTaskError)
    first, *_, last = text_of(e.value).splitlines()
    assert re.fullmatch(
        rf"ray::Bad\.fail\(\) \(pid=\d+, ip=[\d.]+, actor_id={a._actor_id.hex()}, repr=Bad\(x\)\)", first
    )
    assert last == "ZeroDivisionError: here"


def test_the_actor_lives_on():
    a = Bad.remote()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            ray.get(a.fail.remote())
    assert ray.get(a.take.remote(1)) == 1


def test_the_constructor_raises():
    a = Bad.remote("raise")
    for method in (a.take, a.take):
        with pytest.raises(ActorDiedError) as e:
            ray.get(method.remote(1), timeout=20)
        text = text_of(e.value)
        first, *_, last = text.splitlines()
        assert first.startswith(
            "The actor died because of an error raised in its creation task, ray::Bad.__init__() (pid="
        )
        assert f"actor_id={a._actor_id.hex()}, repr=" in first and last == "ValueError: in the constructor"
        assert e.value.actor_init_failed and e.value.actor_id == a._actor_id.hex()
    with pytest.raises(ActorDiedError):
        ray.get(a.__ray_ready__.remote(), timeout=20)


def test_an_argument_failed():
    a = Bad.remote()
    with pytest.raises(ZeroDivisionError) as e:
        ray.get(a.take.remote(failing.remote()), timeout=20)
    assert "At least one of the input arguments for this task could not be computed" in str(e.value)
    with pytest.raises(ZeroDivisionError):
        ray.get(a.call.remote([failing.remote()]), timeout=20)


def test_an_argument_of_the_constructor_failed():
    a = Bad.remote(failing.remote())
    with pytest.raises(ActorDiedError, match="ZeroDivisionError: zz"):
        ray.get(a.take.remote(1), timeout=20)


def test_what_cannot_be_pickled():
    import threading

    a = Bad.remote()
    with pytest.raises(TypeError, match="Could not serialize the argument"):
        a.take.remote(threading.Lock())
    with pytest.raises(TypeError, match="Could not serialize the argument"):
        Bad.remote(threading.Lock())
    with pytest.raises(TypeError):
        ray.get(a.unpicklable.remote())


def test_a_dead_actor_s_result_as_an_argument():
    a = Bad.remote()
    ray.get(a.take.remote(1))
    ray.kill(a)
    lost = a.take.remote(1)
    with pytest.raises(ActorDiedError):
        ray.get(lost, timeout=20)

    @ray.remote
    def consume(x):
        return x

    with pytest.raises(RayTaskError):
        ray.get(consume.remote(lost), timeout=20)


def test_wrong_number_of_results():
    a = Bad.remote()
    with pytest.raises(ValueError, match="Task returned 3 objects, but num_returns=2."):
        ray.get(a.take.options(num_returns=2).remote([1, 2, 3]))


def test_a_class_that_cannot_be_pickled():
    import threading

    lock = threading.Lock()

    @ray.remote
    class Locked:
        def get(self):
            return lock

    with pytest.raises(TypeError, match="Could not serialize the actor class .*Locked"):
        Locked.remote()


def test_a_dead_actor_says_where_it_was():
    a = Bad.remote()
    ray.get(a.take.remote(1))
    ray.kill(a)
    with pytest.raises(ActorDiedError) as e:
        ray.get(a.take.remote(1))
    text = str(e.value)
    assert f"\n\tip: {ray.util.get_node_ip_address()}\n" in text
    assert repr(e.value) == f"ActorDiedError({text!r})"
