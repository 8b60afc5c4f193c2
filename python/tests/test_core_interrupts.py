"""Exceptions that signal handlers raise at any point lose nothing, and do nothing twice."""

import gc
import os
import random
import signal
import socket
import struct
import threading
from collections import Counter

import pytest
from fake_daemon import TOKEN, FakeDaemon

from ray import _core
from ray._core import wire
from ray._core.arena import Arena
from ray._core.channel import Channel
from ray._core.outbox import Outbox
from ray._core.refs import Value
from ray._core.state import state

JOB = {"namespace": "", "sys_path": [], "cwd": "", "env_vars": {}, "logging": None}


class Interrupt(BaseException):
    pass


class Storm:
    """Raises Interrupt in the main thread at random moments while armed."""

    def __init__(self, seed, longest=0.0004):
        self.random = random.Random(seed)
        self.longest = longest
        self.hits = 0
        self.armed = False

    def __enter__(self):
        gc.collect()  # an interrupt inside another test's finalizer would be kept, and what it refers to, by pytest
        self.before = signal.signal(signal.SIGALRM, self.strike)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)

    def strike(self, *_):
        if self.armed:
            self.hits += 1
            raise Interrupt

    def attempt(self, fn):
        """Run fn with an interrupt on its way; whether it came through."""
        done = False
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(1e-6, self.longest))
            fn()
            done = True
            self.armed = False
        except Interrupt:
            self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        return done


class Reader(threading.Thread):
    """Collects what arrives on a socket, slowly enough that it fills now and then."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock = sock
        self.parts = []
        self.start()

    def run(self):
        rng = random.Random(1)
        while True:
            data = self.sock.recv(rng.choice((100, 5000, 100000)))
            if not data:
                return
            self.parts.append(data)

    def result(self):
        self.join(20)
        assert not self.is_alive()
        return b"".join(self.parts)


def split(data):
    frames = []
    at = 0
    while at < len(data):
        n = struct.unpack_from("<I", data, at)[0]
        frames.append(data[at : at + 4 + n])
        at += 4 + n
    assert at == len(data)
    return frames


def released(frames):
    out = Counter()
    for f in frames:
        if f[4] in (wire.RELEASE, wire.UNPIN):
            for i in range(struct.unpack_from("<I", f, 5)[0]):
                oid, n = struct.unpack_from("<28sI", f, 9 + 32 * i)
                out[f[4], oid] += n
    return out


def oid_of(i):
    return struct.pack(">Q", i) + b"\xff" * 12 + b"\1\0\0\0" + b"\1\0\0\0"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("flusher", [False, True])
def test_stream_keeps_every_byte_in_order(seed, flusher):
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reader = Reader(b)
    box = Outbox(a)
    if flusher:
        box.start()
    rng = random.Random(seed)
    sent = []
    made = []
    serial = 0
    with Storm(seed) as storm:
        while storm.hits < 800:
            for _ in range(rng.randint(0, 40)):
                frame = wire.frame(wire.CALL, os.urandom(rng.choice((4, 60, 3000))))
                sent.append(frame)
                box.frames.append(frame)
            held = []
            for _ in range(rng.randint(0, 5)):
                serial += 1
                made.append(oid_of(serial))
                held.append(box.table.own(made[-1]))
            held.clear()
            storm.attempt(box.flush)
    box.flush(claims=True)
    if flusher:
        box.close()
    else:
        a.close()
    frames = split(reader.result())
    assert [f for f in frames if f[4] == wire.CALL] == sent
    assert released(frames) == {(wire.RELEASE, oid): 1 for oid in made}
    assert not box.table.live
    b.close()


@pytest.mark.parametrize("seed", range(4))
def test_channel_handles_every_frame_once(seed):
    out_a, out_b = socket.socketpair()
    reader = Reader(out_b)
    box = Outbox(out_a)
    table = box.table
    a, b = socket.socketpair()
    fd = os.memfd_create("arena")
    os.ftruncate(fd, 1 << 20)
    channel = Channel(a, 1, box, Arena(fd, 1 << 20))
    channel.arena.exporter(0, 10)  # an import that is interrupted every time would never end
    rng = random.Random(seed)
    count = 4000
    expected = Counter()
    stream = []
    for i in range(count):
        oid = oid_of(i)
        kind = rng.choice("pncia")
        contained = (
            [oid_of(rng.randrange(10**6, 10**6 + 50)) for _ in range(rng.randint(1, 4))] if kind in "cia" else []
        )
        head = struct.pack("<I", 1) + oid + b"\0"
        if kind == "i":
            early = [oid_of(2 * 10**6 + i)]
            stream.append(wire.frame(wire.IDS, oid + early[0]))
            expected.update((wire.RELEASE, c) for c in early)
        expected.update((wire.RELEASE, c) for c in contained)
        if kind == "a":
            expected[wire.UNPIN, oid] += 1
            tail = (
                b"\1" + struct.pack("<I", len(contained)) + b"".join(contained) + struct.pack("<QQ", 64 * (i % 100), 40)
            )
        else:
            tail = b"\0" + struct.pack("<I", len(contained)) + b"".join(contained) + struct.pack("<BI", 9, i)
        stream.append(wire.frame(wire.VALUE, head + tail))
        if kind == "n":
            stream.append(wire.frame(wire.REPLY, struct.pack("<I", 5 + i) + b"\x80"))
    data = b"".join(stream)

    def feed():
        at = 0
        pieces = random.Random(seed)
        while at < len(data):
            at += b.send(data[at : at + pieces.choice((1, 7, 50, 500, 3000))])

    writer = threading.Thread(target=feed, daemon=True)
    writer.start()
    seen = []
    keep = [table.own(oid_of(i)) for i in range(0, count, 7)]
    with Storm(seed, 0.0001) as storm:
        last = oid_of(count - 1)
        while last not in channel.values:
            storm.attempt(lambda: channel.receive(10))
    assert storm.hits > 100
    writer.join(10)
    for i in range(count):
        value = channel.values[oid_of(i)]
        assert type(value) is Value
        seen.append(value)
        if isinstance(value.data, bytes):
            assert value.data == struct.pack("<BI", 9, i)
        else:
            assert len(value.data) == 40
    for ref in keep:
        assert ref._v is not None
    expected.update((wire.RELEASE, r._id) for r in keep)
    box.flush(claims=True)
    del value, ref, seen, keep
    channel.values.clear()
    gc.collect()
    box.flush(claims=True)
    assert not table.held
    out_a.close()
    assert released(split(reader.result())) == expected
    for s in (a, b, out_b):
        s.close()


@pytest.mark.parametrize("seed", range(2))
def test_whole_client_ends_with_a_clean_ledger(tmp_path, seed):
    daemon = FakeDaemon(tmp_path, workers=1)
    _core.connect(daemon.path, TOKEN, JOB, ray_version="test")
    try:

        def same(x=None, *more):
            return x

        def pair():
            return [_core.put(1), _core.put(b"x" * 200000)]

        def make(fn):
            body = _core.Function(fn, fn.__name__, fn.__name__)
            return _core.Template(
                body, name=fn.__name__, qualname=fn.__name__, resources={}, max_retries=0, retry_exceptions=False
            )

        tsame, tpair = make(same), make(pair)
        _core.get([_core.submit(tsame, ()), _core.submit(tpair, ())])
        rng = random.Random(seed)
        wrong = []

        def small():
            if _core.get(_core.put([seed])) != [seed]:
                wrong.append("small")

        def large():
            if _core.get(_core.put(b"y" * 150000)) != b"y" * 150000:
                wrong.append("large")

        def task():
            if _core.get(_core.submit(tsame, (5,))) != 5:
                wrong.append("task")

        def nested():
            inner = _core.put({"k": 1})
            got = _core.get(_core.submit(tsame, ([inner],)))
            if got[0] is not inner or _core.get(got[0]) != {"k": 1}:
                wrong.append("nested")

        def borrowed():
            one, two = _core.get(_core.submit(tpair, ()))
            if _core.get([one, two]) != [1, b"x" * 200000]:
                wrong.append("borrowed")

        def waiting():
            made = [_core.submit(tsame, (i,)) for i in range(4)]
            ready, rest = _core.wait(made, 2)
            if len(ready) != 2 or len(rest) != 2:
                wrong.append("wait")

        ops = [small, large, task, nested, borrowed, waiting]
        done = 0
        with Storm(seed, 0.003) as storm:
            while storm.hits < 400:
                done += storm.attempt(rng.choice(ops))
        assert done > 50
        assert not wrong
        for op in ops:
            op()
        assert not wrong
        functions = {tsame.function.export()._id, tpair.function.export()._id}
        gc.collect()
        # What an interrupt left on the channel is forgotten with the next request, and told with the next flush.
        for _ in range(2):
            _core.call("echo")
            state.client.box.flush(claims=True)
        _core.call("echo")
        deliveries, pins, creating = daemon.on_loop(
            lambda: (+daemon.driver.deliveries, +daemon.driver.pins, dict(daemon.creating))
        )
        assert set(deliveries) == functions
        assert not pins
        assert not creating
    finally:
        _core.disconnect()
        daemon.close()
