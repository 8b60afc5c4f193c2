"""Finalizers and reducers of programs may call ray wherever the collector or the pickler runs them."""

import gc

import pytest
from fake_daemon import TOKEN, FakeDaemon

from ray import _core
from ray._core.state import state

JOB = {"namespace": "", "sys_path": [], "cwd": "", "env_vars": {}, "logging": None}


@pytest.fixture
def daemon(tmp_path):
    made = FakeDaemon(tmp_path, workers=1)
    _core.connect(made.path, TOKEN, JOB, ray_version="test")
    yield made
    _core.disconnect()
    made.close()


def template(fn):
    return _core.Template(
        _core.Function(fn, fn.__name__, fn.__name__), name=fn.__name__, qualname=fn.__name__, resources={}, max_retries=0,
        retry_exceptions=False,
    )  # fmt: skip


class Cycle:
    """Garbage that calls ray while it is collected."""

    calls = 0
    depth = 0

    def __init__(self, ref):
        self.me = self
        self.ref = ref

    def __del__(self):
        if Cycle.depth > 3 or state.client is None:
            return
        Cycle.depth += 1
        try:
            assert _core.get(_core.submit(Cycle.template, (7,))) == 7
            Cycle.calls += 1
        finally:
            Cycle.depth -= 1


def test_collector_that_calls_ray_at_every_allocation(daemon):
    def same(x):
        return x

    Cycle.template = same_template = template(same)
    assert _core.get(_core.submit(same_template, (1,))) == 1
    Cycle.calls = 0
    old = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for i in range(60):
            Cycle(_core.put(i))
            refs = [_core.submit(same_template, ([_core.put(k)],)) for k in range(3)]
            assert [_core.get(v[0]) for v in _core.get(refs)] == [0, 1, 2]
            assert len(_core.wait(refs, 3)[0]) == 3
    finally:
        gc.set_threshold(*old)
    gc.collect()
    assert Cycle.calls > 20
    assert not daemon.errors


class CallsRay:
    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return _core.get, (_core.put(self.value),)


def test_reducers_may_put_and_get(daemon):
    def same(x):
        return x

    same_template = template(same)
    assert _core.get(_core.put([CallsRay(5)])) == [5]
    assert _core.get(_core.submit(same_template, (CallsRay([6]),))) == [6]
