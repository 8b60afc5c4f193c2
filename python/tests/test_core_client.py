"""The engine-facing part of the SDK against a daemon in a thread and real worker processes."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading

import pytest
from fake_daemon import TOKEN, FakeDaemon

from ray import _core, exceptions
from ray._core import refs, serialization, wire
from ray._core.state import state

JOB = {
    "namespace": "",
    "sys_path": [os.path.dirname(os.path.abspath(__file__))],
    "cwd": "",
    "env_vars": {},
    "logging": None,
}


def start(tmp_path, **kwargs):
    made = FakeDaemon(tmp_path, **kwargs)
    _core.connect(made.path, TOKEN, JOB, ray_version="test")
    return made


@pytest.fixture
def daemon(tmp_path):
    made = start(tmp_path)
    yield made
    _core.disconnect()
    made.close()


def template(fn, **options):
    options = {"resources": {"CPU": 10000}, "max_retries": 0, "retry_exceptions": False, **options}
    return _core.Template(
        _core.Function(fn, fn.__name__, fn.__name__), name=fn.__name__, qualname=fn.__name__, **options
    )


def same(x=None, *more, **named):
    return x


def ledger(daemon):
    """Deliveries and pins that the driver holds, once all that it has said is heard."""
    gc.collect()
    for _ in range(2):
        _core.call("echo")
    return daemon.on_loop(lambda: (+daemon.driver.deliveries, +daemon.driver.pins))


def test_one_object_an_id(daemon):
    ref = _core.put(1)
    assert _core.ObjectRef(ref.binary()) is ref
    assert _core.get(_core.put([ref]))[0] is ref
    assert _core.get(_core.submit(template(same), ([ref],)))[0] is ref
    import copy

    assert copy.deepcopy([ref])[0] is ref and copy.copy(ref) is ref
    assert repr(ref) == f"ObjectRef({ref.hex()})"


def test_values_survive_the_way_there_and_back(daemon):
    t = template(same)
    values = [None, 1, 2.5, "é", b"", b"raw" * 50000, [1, {"a": (2, 3)}], {1: "x" * 200000}, range(3), {1, 2}]
    for value in values:
        assert _core.get(_core.put(value)) == value
        assert _core.get(_core.submit(t, (value,))) == value
        assert _core.get(_core.submit(t, (_core.put(value),))) == value
    assert _core.get(_core.submit(t, (), {"x": 5})) == 5
    assert _core.get(_core.submit(t, (), {"x": _core.put(6), "y": 1})) == 6


def test_arrays_are_read_only_views_that_outlive_shutdown(tmp_path):
    np = pytest.importorskip("numpy")
    daemon = start(tmp_path)
    small, large = np.arange(5.0), np.arange(100000.0)
    got = _core.get([_core.put(small), _core.put(large)])
    for back, sent in zip(got, (small, large)):
        assert (back == sent).all() and not back.flags.writeable
        assert back.ctypes.data % 64 == 0
    ref = _core.put(large)
    view = _core.get(ref)[10:20]
    assert len(ledger(daemon)[1]) == 2
    del ref, back, sent
    got.pop()
    assert len(ledger(daemon)[1]) == 1
    _core.disconnect()
    daemon.close()
    assert view.sum() == sum(range(10, 20))


def test_refs_are_given_back(daemon):
    t = template(same)
    _core.get(_core.submit(t, ()))
    fixed = set(ledger(daemon)[0])

    def work():
        inner = [_core.put(i) for i in range(5)]
        outer = _core.put(inner)
        again = _core.get(_core.submit(t, (inner, outer)))
        assert again == inner
        _core.get(_core.submit(t, (b"z" * 300000,)))
        return _core.get(outer)[2]

    last = work()
    assert _core.get(last) == 2
    assert last._id in ledger(daemon)[0]
    del last
    deliveries, pins = ledger(daemon)
    assert set(deliveries) == fixed and not pins
    worker = daemon.workers[0].peer
    assert not daemon.on_loop(lambda: +worker.deliveries)
    assert not daemon.on_loop(lambda: +worker.pins)


def test_what_is_dropped_is_told_without_another_call(daemon):
    ref = _core.put(1)
    _core.call("echo")
    seen = threading.Event()
    daemon.on_loop(lambda: setattr(daemon, "record", True))
    keep = ref._id
    del ref

    def look():
        if any(kind == wire.RELEASE and keep in body for _, kind, body in daemon.frames):
            seen.set()

    while not seen.is_set():
        daemon.on_loop(look)


def test_list_of_many_refs(daemon):
    many = [_core.put(i) for i in range(90000)]
    outer = _core.put(many)
    assert _core.get(outer) == many
    count = template(lambda *a: len(a))
    assert _core.get(_core.submit(count, tuple(many[:10000]))) == 10000
    assert _core.get(_core.submit(template(same), (many,))) == many
    ready, rest = _core.wait(many, len(many))
    assert ready == many and not rest


def test_errors(daemon):
    def fail(x):
        raise ValueError(x)

    t, bad = template(same), template(fail)
    with pytest.raises(ValueError) as e:
        _core.get(_core.submit(bad, (7,)))
    assert isinstance(e.value, exceptions.RayTaskError) and e.value.cause.args == (7,)
    lines = str(e.value).splitlines()
    assert "ray::fail()" in lines[0] and lines[-1] == "ValueError: 7" and "in fail" in lines[1]
    with pytest.raises(ValueError) as e:
        _core.get(_core.submit(t, (_core.submit(bad, (8,)),)))
    lines = str(e.value).splitlines()
    assert lines[1] == "  At least one of the input arguments for this task could not be computed:"
    assert lines[2].startswith("ray.exceptions.RayTaskError: ") and lines[-1] == "ValueError: 8"
    with pytest.raises(exceptions.GetTimeoutError):
        _core.get(_core.ObjectRef.from_random(), 0.01)
    with pytest.raises(exceptions.GetTimeoutError):
        _core.get([_core.put(1), _core.ObjectRef.from_random()], 0)
    with pytest.raises(ValueError, match="9"):
        _core.get([_core.ObjectRef.from_random(), _core.submit(bad, (9,))])
    with pytest.raises(TypeError, match="Could not serialize the put value"):
        _core.put(threading.Lock())
    with pytest.raises(TypeError, match="Could not serialize the argument"):
        _core.submit(t, (threading.Lock(),))
    for wrong, error in ((3, ValueError), ([3], TypeError)):
        with pytest.raises(error):
            _core.get(wrong)
    assert _core.get(_core.submit(t, (1,))) == 1


def test_number_of_returns(daemon):
    two = template(lambda *a: a)
    assert _core.get(_core.submit(two, (1, 2), None, 2)) == [1, 2]
    assert _core.submit(two, (), None, 0) is None
    with pytest.raises(ValueError, match=r"Task returned 3 objects, but num_returns=2\."):
        _core.get(_core.submit(two, (1, 2, 3), None, 2)[1])
    big = [b"a" * 90000] * 20
    assert _core.get(_core.submit(two, tuple(big), None, 20)) == big


def test_wait(daemon):
    t = template(same)
    never = [_core.ObjectRef.from_random() for _ in range(3)]
    done = [_core.submit(t, (i,)) for i in range(3)]
    mixed = [never[0], done[0], never[1], done[1], never[2], done[2]]
    ready, rest = _core.wait(mixed, 3)
    assert ready == done and rest == never
    ready, rest = _core.wait(mixed, 4, 0.01)
    assert ready == done and rest == never
    assert _core.wait(mixed, 1) == ([done[0]], [r for r in mixed if r is not done[0]])
    assert _core.wait(never, 1, 0) == ([], never)
    assert _core.wait([], 1) == ([], [])
    left = [_core.submit(t, (i,)) for i in range(50)]
    while left:
        ready, left = _core.wait(left)
        assert len(ready) == 1
    for args, error in (((done[0],), TypeError), (([1],), TypeError), (([done[0]] * 2,), ValueError),
                        ((done, 4), ValueError), ((done, 0), ValueError), ((done, 1, -1), ValueError)):  # fmt: skip
        with pytest.raises(error):
            _core.wait(*args)
    assert _core.wait(done, 2, None, False)[0] == done[:2]


def test_threads_have_channels_of_their_own(daemon):
    t = template(same)
    wrong = []

    def run(k):
        for i in range(20):
            if _core.get(_core.submit(t, ((k, i),))) != (k, i) or len(_core.wait([_core.submit(t, (i,))])[0]) != 1:
                wrong.append((k, i))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for th in threads:
        th.start()
    for th in threads:
        th.join()
    assert not wrong
    ledger(daemon)
    while daemon.on_loop(lambda: len(daemon.driver.channels)) > 1:  # CHANNEL_CLOSE follows the threads' end
        ledger(daemon)


def test_futures_and_await(daemon):
    t = template(same)

    def fail():
        raise KeyError("k")

    made = [_core.submit(t, (i,)).future() for i in range(20)]
    assert [f.result(10) for f in made] == list(range(20))
    assert _core.put(3).future().result(10) == 3
    error = _core.submit(template(fail), ()).future().exception(10)
    assert isinstance(error, KeyError)

    async def main():
        ref = _core.submit(t, (1,))
        assert await ref == 1 and await ref == 1
        assert await asyncio.gather(*[_core.submit(t, (i,)) for i in range(20)]) == list(range(20))
        assert await asyncio.wrap_future(_core.submit(t, (2,)).future()) == 2
        with pytest.raises(KeyError):
            await _core.submit(template(fail), ())
        assert len(await _core.submit(t, (b"q" * 200000,))) == 200000
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_core.ObjectRef.from_random().as_future(), 0.05)

    asyncio.run(main())


def test_credit(tmp_path):
    daemon = start(tmp_path, credit=50000)
    t = template(same)
    made = [_core.submit(t, (b"x" * 500,)) for _ in range(500)]
    assert _core.get(made) == [b"x" * 500] * 500
    _core.disconnect()
    daemon.close()


def test_retriable_errors_are_marked(daemon):
    def fail(kind):
        raise {"v": ValueError, "k": KeyError}[kind]("x")

    daemon.on_loop(lambda: setattr(daemon, "record", True))
    for types, kind in (((ValueError,), "v"), ((ValueError,), "k"), (True, "k"), (False, "k")):
        with pytest.raises(exceptions.RayTaskError):
            _core.get(_core.submit(template(fail, retry_exceptions=types), (kind,)))
    outcomes = [body[12] for _, kind, body in daemon.frames if kind == wire.RESULT]
    assert outcomes == [2, 1, 2, 1]


def test_a_worker_leaves_after_max_calls(daemon):
    t = template(lambda: os.getpid(), max_calls=1)
    assert len({_core.get(_core.submit(t, ())) for _ in range(3)}) == 3


def test_tasks_start_tasks(daemon):
    def parent():
        made = [_core.put(k) for k in range(3)]
        return made, _core.get(_core.put([1, made[0]])), _core.current_task().name

    made, (one, first), name = _core.get(_core.submit(template(parent), ()))
    assert first is made[0] and one == 1 and name == "parent"
    assert _core.get(made) == [0, 1, 2]


class Handle:
    """Pickles as the export of a function, as a remote function does."""

    function = None

    def __reduce__(self):
        return _core.Function.from_export, (self.function.export(), "down", "down")


def test_a_function_may_mention_itself(daemon):
    me = Handle()

    def down(n):
        return [n, *(me.callable(n - 1) if n else ())]

    Handle.function = _core.Function(down, "down", "down")
    t = _core.Template(Handle.function, name="d", qualname="d", resources={}, max_retries=0, retry_exceptions=False)
    assert _core.get(_core.submit(t, (3,))) == [3, 2, 1, 0]


def test_templates_are_dropped(daemon):
    t = template(same)
    _core.get(_core.submit(t, (1,)))
    assert len(daemon.on_loop(lambda: dict(daemon.driver.templates))) == 1
    del t
    ledger(daemon)
    assert not daemon.on_loop(lambda: dict(daemon.driver.templates))


def test_a_process_connects_many_times(tmp_path):
    daemon = FakeDaemon(tmp_path, workers=0)

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = None
    for i in range(100):
        client = _core.connect(daemon.path, TOKEN, JOB, ray_version="test")
        ref = _core.put(i)
        assert _core.get(ref) == i
        _core.call("echo")
        _core.disconnect()
        assert state.client is None
        del client
        with pytest.raises(exceptions.RaySystemError):
            _core.get(ref)
        if i == 5:
            before = daemon.on_loop(descriptors), threading.active_count()
    gc.collect()
    while daemon.on_loop(descriptors) > before[0] + 2:  # the daemon's ends close when it reads the ends of file
        pass
    assert threading.active_count() <= before[1]
    daemon.close()


def test_refs_of_a_closed_connection_are_useless(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = start(tmp_path / "a", workers=0)
    ref = _core.put(1)
    _core.disconnect()
    first.close()
    second = start(tmp_path / "b", workers=0)
    for use in (lambda: _core.get(ref), lambda: _core.wait([ref]), lambda: _core.submit(template(same), (ref,))):
        with pytest.raises(exceptions.RaySystemError, match="shutdown"):
            use()
    _core.disconnect()
    second.close()


def test_wrong_token_is_refused(tmp_path):
    daemon = FakeDaemon(tmp_path, workers=0)
    with pytest.raises(exceptions.AuthenticationError, match="wrong token"):
        _core.connect(daemon.path, b"no", JOB, ray_version="test")
    with pytest.raises(ConnectionError, match="Could not connect"):
        _core.connect(str(tmp_path / "nobody"), TOKEN, JOB, ray_version="test")
    assert state.client is None
    daemon.close()


def test_a_forked_child_cannot_use_the_connection(daemon):
    ref = _core.put(1)
    kept = _core.put(b"x" * 200000)
    assert len(_core.get(kept)) == 200000
    client = state.client
    ours = [client.box.sock.fileno(), client.channel().sock.fileno()]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                _core.get(ref)
            except exceptions.RaySystemError as e:
                code = 0 if "forked" in str(e) and not any(map(_is_open, ours)) else 3
            del ref
            gc.collect()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert all(map(_is_open, ours))
    assert _core.get(ref) == 1 and _core.get(kept) == b"x" * 200000


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_registered_serializers(daemon):
    class Odd:
        def __init__(self, n):
            self.n = n

    _core.register_serializer(Odd, lambda o: o.n, lambda n: ("odd", n))
    try:
        assert _core.get(_core.put([Odd(3)])) == [("odd", 3)]
    finally:
        _core.deregister_serializer(Odd)
    assert _core.get(_core.put(Odd(4))).n == 4


def test_out_of_band_refs_pin(daemon, monkeypatch):
    import pickle

    ref = _core.put(5)
    oid = ref._id
    data = pickle.dumps(ref)
    del ref
    assert oid in ledger(daemon)[0]
    assert _core.get(pickle.loads(data)) == 5
    monkeypatch.setenv("RAY_allow_out_of_band_object_ref_serialization", "0")
    with pytest.raises(exceptions.OufOfBandObjectRefSerializationException):
        pickle.dumps(_core.put(1))
    refs._pinned.clear()


def test_cached_values_are_bounded(daemon, monkeypatch):
    monkeypatch.setattr(refs, "CACHE_LIMIT", 100000)
    made = [_core.put(b"%d" % i * 3000) for i in range(100)]
    kept = sum(len(r._v.data) for r in made if type(r._v) is refs.Value)
    assert 0 < kept <= 100000
    assert _core.get(made) == [b"%d" % i * 3000 for i in range(100)]


def test_blocked_get_says_why(daemon, monkeypatch, caplog):
    monkeypatch.setattr("ray._core.client._WARN_AFTER", 0.02)
    with caplog.at_level("WARNING", logger="ray"):
        monkeypatch.setattr("logging.getLogger", _propagating(monkeypatch))
        with pytest.raises(exceptions.GetTimeoutError):
            _core.get(_core.ObjectRef.from_random(), 0.3)
    said = [r.getMessage() for r in caplog.records if "no worker is free" in r.getMessage()]
    assert 1 <= len(said) <= 5  # after 0.02, 0.04, 0.08 and 0.16 s; a slow machine lets some out


def _propagating(monkeypatch):
    import logging

    original = logging.getLogger

    def get(name=None):
        logger = original(name)
        if name == "ray":
            monkeypatch.setattr(logger, "propagate", True)
        return logger

    return get


def test_import_is_light():
    code = (
        "import sys; import ray._core; "
        "print([m for m in ('numpy','asyncio','cloudpickle','msgpack','ctypes','logging','hashlib') if m in sys.modules])"
    )
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    out = subprocess.run(
        [sys.executable, "-S", "-c", code], env={**os.environ, "PYTHONPATH": folder}, stdout=subprocess.PIPE, check=True
    )
    assert out.stdout.strip() == b"[]"


def test_payloads_with_buffers_are_aligned():
    np = pytest.importorskip("numpy")
    payload = serialization.serialize([np.arange(10), np.ones(3, dtype="int8"), b"x"])
    data = payload.tobytes()
    assert len(data) == payload.size
    assert all(offset % 64 == 0 for offset, _ in payload.pieces)
    back = serialization.deserialize(data)
    assert (back[0] == np.arange(10)).all() and back[2] == b"x"


def test_a_daemon_that_hangs_up_first_is_asked_again(tmp_path):
    """It waits only so long for HELLO, and this process may be kept from the CPU."""
    from ray._core import greeting, wire

    path = str(tmp_path / "socket")
    calls = []

    def serve(listener, patient_from):
        while len(calls) < 3:
            peer, _ = listener.accept()
            calls.append(peer.recv(65536) if len(calls) >= patient_from else b"")
            if calls[-1]:
                peer.sendall(wire.frame(wire.WELCOME, b"\x80"))
            peer.close()

    for patient_from, fine in ((2, True), (3, False)):
        calls.clear()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path + str(patient_from))
            listener.listen()
            thread = threading.Thread(target=serve, args=(listener, patient_from))
            thread.start()
            if fine:
                sock, welcome, fd = greeting.dial(path + "2", "channel", b"k", version="1", session=b"", chan=1)
                assert welcome == {} and fd is None
                sock.close()
            else:
                with pytest.raises(ConnectionError, match="did not accept this process"):
                    greeting.dial(path + "3", "channel", b"k", version="1", session=b"", chan=1)
            thread.join(10)
            assert len(calls) == 3


def test_values_of_dead_refs_are_not_counted(daemon):
    table = _core.state.client.table
    kept = [_core.put(b"k" * 1000) for _ in range(50)]
    for _ in range(5000):
        _core.put(b"x" * 1000)
    assert len(table.kept) <= 2 * 50 + 1025 and table.kept_bytes <= 1100 * len(table.kept)
    assert {ref._id for ref in kept} <= {oid for oid, _ in table.kept}
    assert _core.get(kept) == [b"k" * 1000] * 50
