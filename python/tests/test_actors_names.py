"""Named actors: looking up, namespaces, names that are taken, detached ones."""

import threading
import time

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
class A:
    def __init__(self, x=0):
        self.x = x

    def get(self):
        return self.x

    def context(self):
        context = ray.get_runtime_context()
        return context.get_actor_name(), context.namespace


def eventually(function, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return function()
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_look_up():
    a = A.options(name="look-up").remote(5)
    found = ray.get_actor("look-up")
    assert found == a and ray.get(found.get.remote()) == 5
    assert ray.get(found.context.remote()) == ("look-up", ray.get_runtime_context().namespace)
    assert "look-up" in ray.util.list_named_actors()

    @ray.remote
    def in_task():
        return ray.get(ray.get_actor("look-up").get.remote())

    assert ray.get(in_task.remote()) == 5


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Failed to look up actor with name 'nobody'"):
        ray.get_actor("nobody")
    for name in ("", None):
        with pytest.raises(ValueError, match="Please supply a non-empty value to get_actor"):
            ray.get_actor(name)


def test_names_are_weak_and_free_again():
    a = A.options(name="weak").remote()
    weak = ray.get_actor("weak")
    ray.get(weak.get.remote())
    del a
    again = eventually(lambda: A.options(name="weak").remote(2))
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(weak.get.remote())
    assert ray.get(ray.get_actor("weak").get.remote()) == 2
    ray.kill(again)
    third = eventually(lambda: A.options(name="weak").remote(3))
    assert ray.get(third.get.remote()) == 3


def test_a_name_that_is_taken():
    a = A.options(name="taken").remote(1)
    with pytest.raises(ValueError, match="The name taken .* is already taken") as e:
        A.options(name="taken").remote(2)
    assert isinstance(e.value, ray.exceptions.ActorAlreadyExistsError)
    assert ray.get(a.get.remote()) == 1


def test_namespaces():
    a = A.options(name="scoped", namespace="one").remote(1)
    b = A.options(name="scoped", namespace="two").remote(2)
    assert ray.get_actor("scoped", namespace="one") == a and ray.get_actor("scoped", namespace="two") == b
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("scoped")
    assert "scoped" not in ray.util.list_named_actors()
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    assert {"name": "scoped", "namespace": "one"} in everywhere and {"name": "scoped", "namespace": "two"} in everywhere


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": ""}, ValueError),
        ({"name": 1}, TypeError),
        ({"name": "a", "namespace": ""}, ValueError),
        ({"name": "a", "namespace": 1}, TypeError),
        ({"get_if_exists": True}, ValueError),
        ({"lifetime": "short"}, ValueError),
    ],
)
def test_wrong_names(options, error):
    with pytest.raises(error):
        A.options(**options).remote()


def test_get_if_exists():
    cls = A.options(name="shared", get_if_exists=True)
    a = cls.remote(1)
    assert cls.remote(2) == a and ray.get(cls.remote(3).get.remote()) == 1

    @ray.remote
    def make(i):
        a = A.options(name="raced", get_if_exists=True, lifetime="detached").remote(i)
        return a._actor_id.hex(), ray.get(a.get.remote())

    assert len(set(ray.get([make.remote(i) for i in range(12)]))) == 1
    ray.kill(ray.get_actor("raced"))


def test_get_if_exists_from_threads():
    found = []

    def make(i):
        found.append(A.options(name="threads", get_if_exists=True).remote(i))

    threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(found)) == 1 and len(set(ray.get([a.get.remote() for a in found]))) == 1


def test_detached():
    @ray.remote
    def make():
        A.options(name="detached", lifetime="detached").remote(9)

    ray.get(make.remote())
    a = ray.get_actor("detached")
    assert ray.get(a.get.remote()) == 9
    del a
    time.sleep(0.1)
    a = ray.get_actor("detached")
    assert ray.get(a.get.remote()) == 9
    ray.kill(a)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(a.get.remote())


def test_a_detached_actor_s_class_travels_with_it():
    class Helper:
        def value(self):
            return 4

    @ray.remote
    class Uses:
        def get(self):
            return Helper().value()

    a = Uses.options(name="closure", lifetime="detached").remote()
    assert ray.get(a.get.remote()) == 4
    assert ray.get(ray.get_actor("closure").get.remote()) == 4
    ray.kill(a)
