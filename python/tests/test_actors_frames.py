"""What a driver says of actors to its daemon, frame by frame."""

import os
import pickle
import struct

import msgpack
import pytest
from fake_daemon import JOB, TOKEN, FakeDaemon
from test_core_client import JOB as SAID
from test_core_client import ledger

import ray
from ray import _core
from ray._core import wire


@pytest.fixture
def daemon(tmp_path):
    made = FakeDaemon(tmp_path, workers=0)
    _core.connect(made.path, TOKEN, SAID, ray_version="test")
    made.record = True
    yield made
    _core.disconnect()
    made.close()


@ray.remote
class A:
    def __init__(self, x=None):
        pass

    def method(self, x=None):
        pass

    @ray.method(num_returns=2, max_task_retries=4, concurrency_group="io")
    def other(self):
        pass


def frames(daemon, *kinds):
    """Bodies of the frames of these kinds that have arrived."""
    _core.call("echo")
    return daemon.on_loop(lambda: [body for _, kind, body in daemon.frames if kind in kinds])


def templates(daemon):
    return {
        wire.u32(b)[0]: msgpack.unpackb(b[4:], strict_map_key=False) for b in frames(daemon, wire.TEMPLATE)
    }  # fmt: skip


def test_creation(daemon):
    a = A.options(num_cpus=2, max_restarts=3).remote(1)
    (body,) = frames(daemon, wire.ACTOR)
    chan, req, no, unique, flags, n_deps, n_contained, n_spec = struct.unpack_from("<III8sHIII", body)
    assert (chan, req, flags, n_deps, n_contained) == (0, 0, 0, 0, 0)
    assert a._actor_id.binary() == unique + bytes(4) + JOB
    spec = msgpack.unpackb(body[34 : 34 + n_spec])
    meta = spec.pop("meta")
    assert spec == {
        "name": "", "namespace": "ns", "detached": False, "get_if_exists": False, "max_restarts": 3, "class_name": "A",
    }  # fmt: skip
    assert _core.deserialize(body[34 + n_spec :]) == ((1,), None)
    fields = templates(daemon)[no]
    assert fields["name"] == "A.__init__" and fields["max_retries"] == 0 and fields["fn"]
    assert fields["resources"] == {"CPU": 20000}
    assert fields["actor"] == {
        "held": {"CPU": 20000}, "max_concurrency": 1, "groups": {}, "is_async": False, "class_name": "A", "meta": meta,
    }  # fmt: skip


def test_calls(daemon):
    a = A.remote()
    refs = [a.method.remote() for _ in range(3)]
    bodies = frames(daemon, wire.ACTOR_CALL)
    assert len({wire.u32(b)[0] for b in bodies}) == 1 and len(templates(daemon)) == 2
    for ref, body in zip(refs, bodies):
        _, unique, actor, *rest = struct.unpack("<I8s16sIHIII", body)
        assert actor == a._actor_id.binary() and rest == [1, 0, 0, 0, 0]
        assert ref.binary() == unique + actor + b"\1\0\0\0"
    fields = templates(daemon)[wire.u32(bodies[0])[0]]
    assert fields["fn"] is None and fields["method"] == "method" and fields["ordered"] is True
    assert fields["group"] == "" and fields["resources"] == {} and fields["max_retries"] == 0
    assert fields["name"] == "A.method" and fields["qualname"].endswith(".A.method")


def test_options_of_methods(daemon):
    cls = ray.remote(concurrency_groups={"io": 1, "x": 2}, max_task_retries=7)(A.__ray_actor_class__)
    a = cls.remote()
    assert len(a.other.remote()) == 2
    a.other.options(max_task_retries=0, retry_exceptions=True, concurrency_group="x", name="n").remote()
    a.method.remote()
    said = templates(daemon)
    seen = []
    for body in frames(daemon, wire.ACTOR_CALL):
        no, _, _, n, _, _, _, n_over = struct.unpack_from("<I8s16sIHIII", body)
        t = said[no]
        over = msgpack.unpackb(body[46 : 46 + n_over]) if n_over else None
        seen.append((t["method"], n, t["max_retries"], t["retry_exceptions"], t["group"], over))
    assert seen == [
        ("other", 2, 4, False, "io", None),
        ("other", 2, 0, True, "x", {"name": "n"}),
        ("method", 1, 7, False, "", None),
    ]


def test_references_in_calls(daemon):
    a, b = A.remote(), A.remote()
    dep, inside = _core.put(1), _core.put(2)
    a.method.remote(dep)
    a.method.remote([inside, b])
    first, second = frames(daemon, wire.ACTOR_CALL)
    assert struct.unpack_from("<II", first, 34) == (1, 0) and first[46:74] == dep.binary()
    assert struct.unpack_from("<II", second, 34) == (0, 2)
    handle_object = _core.actors.handle_object(b._actor_id.binary())
    assert {second[46:74], second[74:102]} == {inside.binary(), handle_object}
    args, _ = _core.deserialize(second[102:], wire.split_ids(second[46:102]))
    assert args[0][0] is inside and args[0][1] == b and type(args[0][1]) is ray.actor.ActorHandle


def test_weak_handles_hold_nothing(daemon):
    from ray import _actor_handle

    a = A.remote()
    weak = _actor_handle.weak(a._actor_id.binary(), a._ray_meta.data)
    assert weak == a and len(_core.serialize([weak]).refs) == 0 and len(_core.serialize([a]).refs) == 1
    weak.method.remote()
    (body,) = frames(daemon, wire.ACTOR_CALL)
    assert struct.unpack_from("<H", body, 32)[0] == wire.WEAK_HANDLE


def test_the_last_handle_is_given_back(daemon):
    a = A.remote()
    handle_object = _core.actors.handle_object(a._actor_id.binary())
    method, copy = a.method, pickle.loads(pickle.dumps(a))
    assert ledger(daemon)[0][handle_object] == 1
    _core.refs._pinned.clear()  # what plain pickle holds
    del a, copy
    assert ledger(daemon)[0][handle_object] == 1
    del method
    assert handle_object not in ledger(daemon)[0]


def test_named_and_detached(daemon):
    A.options(name="n", namespace="other").remote()
    A.options(lifetime="detached", get_if_exists=True, name="d").remote()
    named, detached = frames(daemon, wire.ACTOR)
    specs = [msgpack.unpackb(b[34 : 34 + wire.u32(b, 30)[0]]) for b in (named, detached)]
    assert wire.u32(named, 4)[0] and wire.u32(detached, 4)[0]
    assert (specs[0]["name"], specs[0]["namespace"], "body" in specs[0]) == ("n", "other", False)
    assert specs[1]["detached"] and specs[1]["get_if_exists"]
    assert _core.deserialize(specs[1]["body"]).__name__ == "A"
    assert templates(daemon)[wire.u32(detached, 8)[0]]["fn"] is None


def test_credit(tmp_path):
    made = FakeDaemon(tmp_path, workers=0, credit=3000)
    _core.connect(made.path, TOKEN, SAID, ray_version="test")
    try:
        a = A.remote()
        for i in range(300):
            a.method.remote()
            a.method.remote(i)
        _core.call("echo")
        client = _core.state.client
        assert client.credit_limit - client.credit_left == made.on_loop(lambda: made.driver.received)
    finally:
        _core.disconnect()
        made.close()


def test_large_arguments_go_into_an_object(daemon):
    a = A.remote(os.urandom(100_000))
    a.method.remote(os.urandom(100_000))
    (creation,) = frames(daemon, wire.ACTOR)
    (call,) = frames(daemon, wire.ACTOR_CALL)
    assert struct.unpack_from("<HI", creation, 20) == (wire.ARGS_IN_DEP0, 1)
    assert struct.unpack_from("<HI", call, 32) == (wire.ARGS_IN_DEP0, 1)
