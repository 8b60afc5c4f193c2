"""Drivers far away: ray:// over one TCP connection, on real daemons."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

import ray

DEADLINE = 60.0


@pytest.fixture
def far(cluster, monkeypatch):
    """The ray:// address of a cluster with one node and two CPUs."""
    cluster.add_node(num_cpus=2, object_store_memory=400 << 20)
    yield f"ray://127.0.0.1:{cluster.head_node._info['ray_client_server_port']}"


def until(said, what):
    """Wait until something holds."""
    end = time.monotonic() + DEADLINE
    while not said():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def start(far, text):
    """Another driver, which runs a program."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import ray, sys, time\nray.init({far!r})\n{text}"],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


@ray.remote
def echo(x):
    return x


def test_api_walk(far, capfd):
    with ray.init(far, namespace="walk") as context:
        assert (context.python_version, context._num_clients) == (".".join(map(str, sys.version_info[:3])), 1)
        assert context.ray_version == ray.__version__ and context.protocol_version
        assert ray.is_initialized()
        assert ray.get([echo.remote(k) for k in range(100)]) == list(range(100))

        @ray.remote
        class Counter:
            def __init__(self):
                self.n = 0

            def add(self, k):
                self.n += k
                return self.n

            def items(self, n):
                yield from range(n)

        counter = Counter.options(name="counter").remote()
        assert ray.get([counter.add.remote(k) for k in range(10)])[-1] == 45
        assert ray.get(ray.get_actor("counter").add.remote(1)) == 46
        assert [ray.get(r) for r in counter.items.options(num_returns="streaming").remote(5)] == list(range(5))

        ref = ray.put({"a": [1, 2]})
        assert ray.get(echo.remote([ref]))[0] == ref and ray.get(ref) == {"a": [1, 2]}
        assert ray.wait([ref, echo.remote(1)], num_returns=2)[1] == []

        @ray.remote
        def fails():
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            ray.get(fails.remote())

        @ray.remote
        def sleeps():
            time.sleep(1000)

        slow = sleeps.remote()
        assert ray.wait([slow], timeout=0.01) == ([], [slow])
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(slow, timeout=0.01)
        ray.cancel(slow)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(slow)

        @ray.remote
        def nested():
            return ray.get(echo.remote(ray.get_runtime_context().get_job_id())), ray.get_runtime_context().namespace

        assert ray.get(nested.remote()) == (ray.get_runtime_context().get_job_id(), "walk")
        ray.kill(counter)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(counter.add.remote(1))
        assert len(ray.nodes()) == 1 and ray.cluster_resources()["CPU"] == 2
        from ray.util.state import list_actors

        assert [a.state for a in list_actors()] == ["DEAD"]

        @ray.remote
        def prints():
            print("far away")

        ray.get(prints.remote())
    assert "far away" in capfd.readouterr().out
    assert not ray.is_initialized()


@pytest.mark.parametrize("size", [0, 1, 102300, 102400, 102500, 131072, 1 << 20, 100_000_000])
def test_values_of_all_sizes_both_ways(far, size):
    ray.init(far)
    value = os.urandom(1000) * (size // 1000) + b"x" * (size % 1000)
    ref = ray.put(value)
    assert ray.get(ref) == value
    assert ray.get(echo.remote(ref)) == value
    assert ray.get(echo.remote(value)) == value


def test_arrays_are_views_that_outlive_the_connection(far):
    ray.init(far)
    array = np.arange(1_000_000)
    ref = ray.put(array)
    one, two = ray.get(ref), ray.get(ref)
    assert one.ctypes.data == two.ctypes.data and not one.flags.writeable
    assert (ray.get(echo.remote(array)) == array).all()
    del ref, two
    ray.shutdown()
    assert (one == array).all()


def test_many_large_values_need_no_more_room_than_those_that_are_held(far):
    # Each is a tenth of the store; fifteen pass.
    ray.init(far)
    array = np.zeros(40 << 20, dtype=np.uint8)
    for k in range(15):
        array[0] = k
        assert ray.get(echo.remote(ray.put(array)))[0] == k


def test_threads_get_large_and_small_values_at_once(far):
    ray.init(far)
    big = ray.put(np.ones(1_000_000))
    wrong = []

    def loop():
        for k in range(10):
            if ray.get(echo.remote(big)).sum() != 1_000_000 or ray.get(big)[-1] != 1 or ray.get(echo.remote(k)) != k:
                wrong.append(k)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_nothing_is_left_of_a_client(cluster, far):
    ray.init(cluster.address)
    from ray import _core

    other = start(
        far,
        """
import numpy as np
@ray.remote
def f(x): return x
@ray.remote
class A:
    def g(self): return 1
kept = [ray.put(np.zeros(1 << 20)), f.remote(np.ones(1 << 20)), A.remote(), ray.put(3)]
array = ray.get(kept[1])
ray.get(kept[2].g.remote())
print("up", flush=True)
sys.stdin.readline()
""",
    )
    assert other.stdout.readline() == "up\n"
    assert _core.call("tables")["left"]
    other.communicate("\n", timeout=DEADLINE)
    assert other.returncode == 0
    until(lambda: not _core.call("tables")["left"], "the daemon keeps something of a client that left")


def test_a_killed_client_gives_all_back(cluster, far):
    ray.init(cluster.address)
    from ray import _core

    other = start(
        far,
        """
import numpy as np
@ray.remote(num_cpus=2)
def f():
    print("taken", flush=True)
    time.sleep(1000)
kept = [ray.put(np.zeros(1 << 20)), f.remote()]
ray.wait(kept[1:], timeout=1000)
""",
    )
    until(lambda: ray.available_resources().get("CPU", 0) == 0, "the client's task does not run")
    other.send_signal(signal.SIGKILL)
    other.wait()
    until(lambda: ray.available_resources().get("CPU", 0) == 2, "a dead client's task still has its CPUs")
    until(lambda: not _core.call("tables")["left"], "the daemon keeps something of a dead client")


def test_several_clients_at_once(far):
    ray.init(far, namespace="a")
    others = [
        start(far, "print(ray.get(ray.remote(lambda: 7).remote()), flush=True)\nsys.stdin.readline()") for _ in "ab"
    ]
    assert [p.stdout.readline() for p in others] == ["7\n"] * 2
    assert ray.get(echo.remote(1)) == 1
    for p in others:
        p.communicate("\n", timeout=DEADLINE)
    assert [p.returncode for p in others] == [0, 0]
    ray.shutdown()
    assert ray.init(far)._num_clients == 1


def test_a_wrong_token_or_none_is_refused(far, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(
        ray.exceptions.AuthenticationError, match="refuses the token from RAY_AUTH_TOKEN.*ray get-auth-token"
    ):
        ray.init(far)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with pytest.raises(ray.exceptions.AuthenticationError, match="No token for the cluster at ray://.*kubectl exec"):
        ray.init(far)
    assert not ray.is_initialized()


def test_another_version_of_python_is_refused(far, monkeypatch):
    from ray._core import greeting

    monkeypatch.setattr(greeting, "sys", types.SimpleNamespace(version_info=(3, 4, 0)))
    with pytest.raises(RuntimeError, match="the driver runs Python 3.4"):
        ray.init(far)


def test_where_nobody_listens(own_env, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "some")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"ray://127.0.0.1:{port}: .*refused"):
        ray.init(f"ray://127.0.0.1:{port}")
    with pytest.raises(ValueError, match="Unable to parse port"):
        ray.init("ray://127.0.0.1:x")
    with pytest.raises(RuntimeError, match="Module: foo does not exist"):
        ray.client("foo://x")


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\x00" * 100])
def test_where_something_else_listens(own_env, monkeypatch, says):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "some")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    c, _ = server.accept()
                except OSError:
                    return
                with c:
                    c.recv(10)
                    c.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = server.getsockname()[1]
            with pytest.raises(ConnectionError, match="does not answer as a Gray daemon"):
                ray.init(f"ray://127.0.0.1:{port}")
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_port_between_nodes_says_that_it_is_another(cluster, far):
    with pytest.raises(ConnectionError, match="not that of ray:// clients, which is 10001"):
        ray.init(f"ray://{cluster.address}")


class Tunnel:
    """A TCP proxy whose connections can be cut."""

    def __init__(self, target):
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"ray://127.0.0.1:{self._server.getsockname()[1]}"
        self._pairs = []
        self._lock = threading.Lock()
        self._closed = False
        self.made = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._pairs += [near, far]
                self.made += 1
                for a, b in ((near, far), (far, near)):
                    t = threading.Thread(target=self._pump, args=(a, b))
                    self._threads.append(t)
                    t.start()

    def _pump(self, a, b):
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    break
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self, closed=False):
        with self._lock:
            self._closed = closed
            for s in self._pairs:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._pairs.clear()

    def close(self):
        self.cut(closed=True)
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for t in self._threads:
            t.join()


@pytest.fixture
def tunnel(far):
    host, _, port = far[6:].rpartition(":")
    made = Tunnel((host, int(port)))
    yield made
    ray.shutdown()
    made.close()


def test_a_connection_that_breaks_is_made_again_and_nothing_is_lost(tunnel):
    ray.init(tunnel.address)

    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, k, _):
            self.seen.append(k)

        def all(self):
            return self.seen

    log = Log.remote()
    big = np.zeros(3_000_000, dtype=np.uint8)
    for k in range(60):
        log.add.remote(k, big)
        if k % 6 == 5:
            tunnel.cut()
    assert ray.get(log.all.remote()) == list(range(60))
    assert tunnel.made > 1
    assert len(ray.get([ray.put(big) for _ in range(3)])) == 3


def test_without_a_connection_for_too_long_calls_fail(tunnel, monkeypatch):
    monkeypatch.setenv("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "0.5")
    ray.init(tunnel.address)

    @ray.remote
    def sleeps():
        time.sleep(1000)

    ref = sleeps.remote()
    assert ray.get(echo.remote(1)) == 1
    tunnel.cut(closed=True)
    with pytest.raises(ConnectionError, match="could not be made again within 500ms"):
        ray.get(ref)
    with pytest.raises(ConnectionError):
        ray.get(echo.remote(1))


def test_the_cluster_ends(cluster, far):
    ray.init(far)
    assert ray.get(echo.remote(1)) == 1
    cluster.remove_node(cluster.head_node)
    with pytest.raises(ConnectionError):
        while True:
            ray.get(echo.remote(1))


def test_working_dir_and_variables(far, tmp_path):
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "far_module.py").write_text("WHERE = 'in the package'\n")
    (folder / "large.bin").write_bytes(os.urandom(3 << 20))
    ray.init(far, runtime_env={"working_dir": str(folder), "env_vars": {"FAR": "yes"}})

    @ray.remote
    def look():
        import far_module

        return far_module.WHERE, os.environ["FAR"], os.path.getsize("large.bin")

    assert ray.get(look.remote()) == ("in the package", "yes", 3 << 20)


def test_the_builder(far):
    with pytest.warns(DeprecationWarning, match="ray.init"):
        builder = ray.client(far[6:])
    context = builder.namespace("n").env({"env_vars": {"B": "1"}}).connect()

    @ray.remote
    def look():
        return os.environ["B"], ray.get_runtime_context().namespace

    assert ray.get(look.remote()) == ("1", "n")
    with pytest.raises(RuntimeError, match="twice"):
        ray.init(far)
    context.disconnect()
    assert not ray.is_initialized()
    context.disconnect()


def test_util_connect(far):
    assert ray.util.connect(far[6:], namespace="n")["num_clients"] == 1
    assert ray.get_runtime_context().namespace == "n" and ray.get(echo.remote(1)) == 1
    ray.util.disconnect()
    assert not ray.is_initialized() and not ray.util.client.ray.is_connected()
    ray.util.disconnect()


def test_by_the_environment(far, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", far)
    assert ray.get(echo.remote(3)) == 3
    assert ray.util.client.ray.is_connected()


def test_a_local_connection_is_used_again_afterwards(cluster, far):
    ray.init(cluster.address)
    job = ray.get_runtime_context().get_job_id()
    ref = ray.put(1)
    with ray.init(far):
        assert ray.get_runtime_context().get_job_id() != job
        assert ray.get(echo.remote(2)) == 2
    assert ray.get_runtime_context().get_job_id() == job and ray.get(ref) == 1
    assert ray.get(echo.remote(4)) == 4


def test_several_connections_of_a_process(far):
    ray.init(far)
    one, two = ray.init(far, allow_multiple=True), ray.init(far, allow_multiple=True, namespace="two")
    own = ray.put("own")
    with one:
        first = ray.put("first")
        job = ray.get_runtime_context().get_job_id()
        with two:
            assert ray.get(echo.remote(2)) == 2 and ray.get_runtime_context().namespace == "two"
            with pytest.raises(ValueError, match="another ray:// connection"):
                ray.get(first)
        assert ray.get(first) == "first" and ray.get_runtime_context().get_job_id() == job
        assert ray.get(echo.remote([first]))[0] == first
    with pytest.raises(ValueError, match="another ray:// connection"):
        ray.wait([first])
    assert ray.get(own) == "own" and ray.get_runtime_context().get_job_id() != job
    one.disconnect()
    one.disconnect()
    assert ray.get(echo.remote(own)) == "own"
    two.disconnect()


def test_threads_with_connections_of_their_own(far):
    got = []
    barrier = threading.Barrier(2)

    def work(k):
        context = ray.init(far, allow_multiple=True)
        with context:
            ref = ray.put(k)
            barrier.wait()
            got.append((ray.get(ref), ray.get(echo.remote(k)), k))
            barrier.wait()
        context.disconnect()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(got) == [(0, 0, 0), (1, 1, 1)]
    assert not ray.is_initialized()
