"""Clients and strangers that misbehave: nobody else notices."""

import contextlib
import glob
import os
import resource
import socket
import struct

import pytest
from machines import alive, line, tell, until

IDLE = 8000


@contextlib.contextmanager
def many_descriptors(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"needs {count} descriptors a process; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def listening(pid):
    """The TCP addresses on which a process listens: [(host, port)]."""
    inodes = set()
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    with open(f"/proc/{pid}/net/tcp") as f:
        for row in f.read().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ip, port = fields[1].split(":")
                found.append((socket.inet_ntoa(struct.pack("<I", int(ip, 16))), int(port, 16)))
    return found


def unix(path):
    """Connect to a socket whose path may be too long for a sockaddr."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        return s
    finally:
        os.close(folder)


def log(home):
    return "".join(open(p).read() for p in glob.glob(str(home.root / "session_2*/logs/raylet*.err")))


def memory(pid):
    """Bytes that a process has resident and does not share."""
    with open(f"/proc/{pid}/status") as f:
        return int(next(r for r in f if r.startswith("RssAnon")).split()[1]) << 10


WORK = """
    import sys, ray
    ray.init("auto", log_to_driver=False)
    one = ray.remote(lambda: 1)
    for _ in sys.stdin:
        print(sum(ray.get([one.remote() for _ in range(20)])), flush=True)
"""


@pytest.mark.slow
def test_idle_connections(home):
    """8,000 of them on the client socket, then on each TCP port."""
    head = home.head(cpus=2)
    driver = home.driver(WORK)
    tell(driver)
    assert line(driver) == "20"
    before = memory(head["pid"])
    with many_descriptors(IDLE + 1000):
        for address in [head["socket"], *listening(head["pid"])]:
            idle = []
            try:
                for _ in range(IDLE):
                    if isinstance(address, str):
                        idle.append(unix(address))
                    else:
                        idle.append(socket.create_connection(address, timeout=20))
                tell(driver)
                assert line(driver, 10) == "20"
                assert (
                    home.python(
                        'import ray; ray.init("auto", configure_logging=False); print(ray.get(ray.remote(lambda: 2).remote()))'
                    )
                    == "2\n"
                )
                fds = len(os.listdir(f"/proc/{head['pid']}/fd"))
                assert fds < 3000, f"{fds} descriptors while {address} has {IDLE} idle connections"
                assert memory(head["pid"]) - before < 100 << 20
            finally:
                for s in idle:
                    s.close()
    until(lambda: len(os.listdir(f"/proc/{head['pid']}/fd")) < 200, "the descriptors come back", 30)


def test_at_the_descriptor_limit(home):
    """It refuses with one line in its log, works on for who is in, and recovers."""
    head = home.head(cpus=2)
    driver = home.driver(WORK)
    tell(driver)
    assert line(driver) == "20"
    used = len(os.listdir(f"/proc/{head['pid']}/fd"))
    _, hard = resource.prlimit(head["pid"], resource.RLIMIT_NOFILE)
    resource.prlimit(head["pid"], resource.RLIMIT_NOFILE, (used + 20, hard))
    addresses = [head["socket"], *listening(head["pid"])]
    idle = []
    for address in addresses:
        for _ in range(100):
            try:
                s = unix(address) if isinstance(address, str) else socket.create_connection(address, timeout=5)
            except OSError:
                continue
            idle.append(s)
    tell(driver)
    assert line(driver, 10) == "20"
    until(lambda: "at the connection limit" in log(home), "a line in the log", 10)
    tell(driver)
    assert line(driver, 10) == "20"
    for s in idle:
        s.close()
    until(lambda: len(os.listdir(f"/proc/{head['pid']}/fd")) <= used + 5, "the descriptors come back", 20)
    assert (
        home.python(
            'import ray; ray.init("auto", configure_logging=False); print(ray.get(ray.remote(lambda: 2).remote()))',
            timeout=30,
        )
        == "2\n"
    )
    lines = [r for r in log(home).splitlines() if "at the connection limit" in r]
    assert 1 <= len(lines) <= 2, lines


FRAMES = {
    "garbage": b"\xff" * 100,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length of nothing": struct.pack("<I", 0),
    "a length over the limit": struct.pack("<I", (1 << 20) + 1) + b"\x01",
    "a huge length": b"\xff\xff\xff\x7f\x01GRAY",
    "another frame first": struct.pack("<IB", 5, 0x18) + b"\0\0\0\0",
    "a HELLO cut short": struct.pack("<IB", 100, 1) + b"GRAY",
    "a HELLO of another magic": struct.pack("<IB", 8, 1) + b"YARG\x01\x00\x80",
    "a HELLO without a map": struct.pack("<IB", 7, 1) + b"GRAY\x01\x00",
}


@pytest.mark.parametrize("what", FRAMES)
def test_strangers_on_the_client_socket(home, what):
    head = home.head(cpus=1)
    with contextlib.closing(unix(head["socket"])) as s:
        s.sendall(FRAMES[what])
        s.shutdown(socket.SHUT_WR)
        assert s.recv(100) == b""
    assert (
        home.python(
            'import ray; ray.init("auto", configure_logging=False); print(ray.get(ray.remote(lambda: 2).remote()))'
        )
        == "2\n"
    )
    assert "panic" not in log(home)


def test_bad_frames_of_a_driver(home):
    """Whoever breaks the protocol after its HELLO is told why and disconnected; another driver works on."""
    home.head(cpus=2)
    driver = home.driver(WORK)
    tell(driver)
    assert line(driver) == "20"
    bad = """
        import struct, sys, ray
        from ray import _core
        ray.init("auto", log_to_driver=False)
        one = ray.remote(lambda: 1)
        ray.get(one.remote())
        box = _core.client.connected().box
        frame = eval(sys.argv[1])
        box.sock.setblocking(True)
        try:
            box.sock.sendall(frame)
            ray.get(one.remote(), timeout=20)
            print("answered")
        except ray.exceptions.RayError as e:
            print(type(e).__name__, str(e).replace("\\n", " "))
        except ConnectionError as e:
            print(type(e).__name__, e)
    """
    for frame in (
        'struct.pack("<I", 1 << 21)', 'struct.pack("<IB", 1, 0xee)', 'struct.pack("<IB", 3, 0x12) + b"ab"',
        'struct.pack("<IBII", 9, 0x12, 77, 0)', 'struct.pack("<IBII", 9, 0x19, 1 << 31, 0)',
        'struct.pack("<IBIIBI", 14, 0x16, 1, 1, 0, 1 << 30)', 'struct.pack("<IBQ", 9, 0x1e, 0)',
        'struct.pack("<IBII", 13, 0x1c, 1, 1) + b"\\xc1\\xc1\\xc1\\xc1"',
        'struct.pack("<IBII28sQ", 45, 0x14, 1, 1, bytes(28), 1 << 62)',
    ):  # fmt: skip
        out = home.python(bad, frame)
        print(frame, out)
        assert out.startswith("LocalRayletDiedError The node daemon ended this session: ") or "answered" in out, (
            frame,
            out,
        )
    tell(driver)
    assert line(driver) == "20"
    assert "panic" not in log(home)


def test_half_a_frame(home):
    """A driver that stops in the middle of a frame holds up nobody."""
    home.head(cpus=2)
    slow = home.driver("""
        import struct, sys, ray
        from ray import _core
        ray.init("auto", log_to_driver=False)
        box = _core.client.connected().box
        box.sock.setblocking(True)
        box.sock.sendall(struct.pack("<IB", 1 << 20, 0x13) + bytes(1000))
        print("sent", flush=True)
        sys.stdin.readline()
    """)
    assert line(slow) == "sent"
    driver = home.driver(WORK)
    tell(driver)
    assert line(driver) == "20"


@pytest.mark.slow
def test_a_million_tasks_of_a_driver_that_reads_nothing(home):
    head = home.head(cpus=2)
    greedy = home.driver("""
        import sys, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"never": 1})
        def f():
            pass
        for k in range(1000000):
            f.remote()
            if k == 100000:
                print("going", flush=True)
        print("queued", flush=True)
        sys.stdin.readline()
    """)
    assert line(greedy) == "going"
    driver = home.driver(WORK)
    for _ in range(5):
        tell(driver)
        assert line(driver, 20) == "20"
    assert line(greedy, 110) == "queued"
    assert memory(head["pid"]) < 1200 << 20, memory(head["pid"])
    tell(driver)
    assert line(driver, 20) == "20"
    greedy.kill()
    tell(driver)
    assert line(driver, 30) == "20"


def test_a_driver_that_asks_and_does_not_read(home):
    """What it asked for waits in the store, not in the daemon."""
    head = home.head(cpus=2)
    greedy = home.driver("""
        import sys, ray
        from ray import _core
        from ray._core import wire
        ray.init("auto", log_to_driver=False)
        refs = [ray.put(b"x" * 100_000) for _ in range(200)]
        client = _core.client.connected()
        channel = client.channel()
        for k in range(200):  # 4 GB
            client.box.frames.append(wire.get(channel.no, channel.request(), [r._id for r in refs]))
            client.box.flush()
        print("asked", flush=True)
        sys.stdin.readline()
    """)
    assert line(greedy) == "asked"
    driver = home.driver(WORK)
    for _ in range(5):
        tell(driver)
        assert line(driver, 20) == "20"
    assert memory(head["pid"]) < 400 << 20, memory(head["pid"])
    assert alive((head["pid"], head["start_time"]))


def test_a_process_that_connects_again_and_again(home):
    """Nothing is kept in the daemon for a connection that was shut down, unless a view of its objects lives."""
    head = home.head(cpus=1)
    out = home.python("""
        import os, ray
        def fds():
            return len(os.listdir(f"/proc/{pid}/fd"))
        views = []
        def again(view):
            ray.init("auto", log_to_driver=False)
            ref = ray.put(bytes(1 << 20))
            if view:
                import numpy as np
                views.append(ray.get(ray.put(np.full(1 << 20, len(views), np.uint8))))
            ray.shutdown()
        pid = int(os.environ["DAEMON"])
        again(False)
        before = fds()
        for _ in range(30):
            again(False)
        print(fds() - before)
        for _ in range(5):
            again(True)
        print([int(v[-1]) for v in views])
        ray.init("auto", log_to_driver=False)
        print(ray._core.call("store")["objects"])
    """, env={"DAEMON": str(head["pid"])})  # fmt: skip
    more, views, objects = out.splitlines()
    assert int(more) < 15, more  # one each would be 30; workers that come and go meanwhile have a few
    assert views == "[0, 1, 2, 3, 4]" and objects == "5", out
    driver = home.driver('import ray; ray.init("auto"); print(ray._core.call("store")["objects"], flush=True)')
    assert line(driver) == "0"  # the process has ended, and its views with it
    assert driver.wait(10) == 0


@pytest.mark.slow
def test_a_client_that_asks_and_does_not_read(home):
    """It is disconnected, with the reason, before the daemon keeps more than some hundred MB for it."""
    head = home.head(cpus=1)
    other = home.driver(WORK)
    tell(other)
    assert line(other) == "20"
    before = memory(head["pid"])
    greedy = home.driver("""
        import os, sys, msgpack, ray
        ray.init("auto", log_to_driver=False)
        from ray._core import wire
        client = ray._core.state.client
        channel = client.channel()
        call = msgpack.packb({"m": "why", "ids": [os.urandom(28) for _ in range(2000)]})
        try:
            for k in range(20_000):
                client.box.frames.append(wire.call(channel.no, k + 1, call))
                client.box.flush()
            print("never disconnected", flush=True)
        except ConnectionError as e:
            print(k, e, flush=True)
        sys.stdin.readline()
    """)
    text = line(greedy, 60)
    assert "does not read the answers" in text, text
    assert memory(head["pid"]) - before < 900 << 20
    tell(other)
    assert line(other, 20) == "20"
    tell(greedy)
    assert greedy.wait(20) == 0
