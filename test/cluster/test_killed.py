"""kill -9 of each kind of process: 2 s later nothing is left of what belonged to it, and the rest works on."""

import ctypes
import os
import pathlib
import re
import resource
import signal
import time

import pytest
from machines import alive, children, family, line, shared_memory, tell, until, workers_of, zygote_of

LEFT_S = 2  # what may be left of a killed process has gone by then

PRIVATE = """
    import os, sys, ray
    c = ray.init(num_cpus=2, object_store_memory=100 << 20)
    @ray.remote
    def pid():
        return os.getpid()
    big = ray.put(bytes(1 << 20))
    ray.get([pid.remote() for _ in range(10)])
    print(ray._init._private.pid, c["session_dir"], flush=True)
    for _ in sys.stdin:
        print(ray.get(pid.remote()), flush=True)
"""


def private(home, code=PRIVATE):
    """A driver with a cluster of its own: (driver, daemon's pid, session folder, its processes but the driver)."""
    driver = home.driver(code)
    pid, folder = line(driver).split()
    until(lambda: len(children(int(pid))) >= 3, "a zygote and two workers")
    return driver, int(pid), folder, family(int(pid))


def none_left(processes, bound=LEFT_S):
    until(lambda: not any(map(alive, processes)), f"the end of {processes}", bound)


def files(folder):
    """Files below a session's folder, without its logs."""
    found = []
    for path, _, names in os.walk(folder):
        found += [os.path.join(path, n) for n in names if os.path.basename(path) != "logs"]
    return found


def stores_of(processes):
    pids = {pid for pid, _ in processes}
    return {key for key, holders in shared_memory().items() if holders & pids}


def test_driver(home):
    driver, _, folder, mine = private(home)
    stores = stores_of(mine)
    assert stores
    driver.kill()
    none_left(mine)
    assert not stores & set(shared_memory())
    assert files(folder) == [] and os.listdir(os.path.join(folder, "logs"))


def test_driver_ends_in_order(home):
    driver, _, folder, mine = private(home)
    driver.stdin.close()
    assert driver.wait(20) == 0
    none_left(mine)
    assert files(folder) == []


def test_driver_whose_forked_child_lives(home):
    """The child holds the driver's sockets and store; that keeps nothing alive."""
    code = """
        import os, signal, sys, ray
        c = ray.init(num_cpus=2, object_store_memory=100 << 20)
        one = ray.remote(lambda: 1)
        ref = ray.put(bytes(1 << 20))
        ray.get([one.remote() for _ in range(10)])
        child = os.fork()
        if child == 0:
            try:
                ray.get(ref)
            except BaseException as e:
                os.write(1, type(e).__name__.encode() + bytes([10]))  # whole lines, as two processes write
            signal.pause()
        os.write(1, str(child).encode() + bytes([10]))
        os.write(1, f"{ray._init._private.pid} {c['session_dir']}".encode() + bytes([10]))
        signal.pause()
    """
    driver = home.driver(code)
    said = {line(driver) for _ in range(3)}
    (daemon, folder) = next(s.split() for s in said if " " in s)
    child = next(int(s) for s in said if s.isdigit())
    try:
        assert any(s.endswith("Error") or s == "RaySystemError" for s in said), said
        mine = family(int(daemon))
        driver.kill()
        none_left(mine)
        os.kill(child, 0)
        assert files(folder) == []
    finally:
        os.kill(child, signal.SIGKILL)


def test_second_driver_of_a_cluster(home):
    """Its tasks end and its objects go; the other driver works on."""
    head = home.head(cpus=2)
    first = home.driver("""
        import sys, ray
        ray.init("auto", log_to_driver=False)
        one = ray.remote(lambda: 1)
        for _ in sys.stdin:
            print(ray.get(one.remote(), timeout=50), ray.available_resources().get("CPU"), flush=True)
    """)
    tell(first)
    assert line(first).startswith("1 ")
    second = home.driver("""
        import os, time, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(max_retries=-1)
        def hold():
            print(os.getpid(), file=open("held", "w"), flush=True)
            while True:
                time.sleep(60)
        @ray.remote
        def nest():
            return ray.get(hold.remote())
        ref = nest.remote()
        time.sleep(1000)
    """)
    held = home.folder / "held"
    worker = int(until(lambda: held.exists() and held.read_text().strip(), "the task of the second driver"))
    process = family(worker)
    second.kill()
    none_left(process)
    tell(first)
    assert line(first).startswith("1 ")

    def free():
        tell(first)
        return line(first) == "1 2.0"

    until(free, "the CPUs of the dead driver", 10)
    assert alive((head["pid"], head["start_time"]))


@pytest.mark.parametrize("who", ["worker", "zygote"])
def test_worker_and_zygote(home, who):
    driver, daemon, _, before = private(home)
    victims = workers_of(daemon) if who == "worker" else [zygote_of(daemon)]
    processes = [p for p in before if p[0] in victims]
    assert processes
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    none_left(processes)
    tell(driver)
    assert int(line(driver)) not in victims
    driver.stdin.close()
    assert driver.wait(20) == 0
    none_left(before + family(daemon))


def test_daemon_of_a_private_cluster(home):
    driver = home.driver("""
        import os, sys, time, ray
        c = ray.init(num_cpus=2, object_store_memory=100 << 20)
        @ray.remote
        def hold():
            time.sleep(1000)
        refs = [hold.remote() for _ in range(3)]
        done, _ = ray.wait([ray.remote(lambda: 1).options(num_cpus=0).remote()])
        print(ray._init._private.pid, c["session_dir"], flush=True)
        for what in (lambda: ray.get(refs[0]), lambda: ray.get(hold.remote()), lambda: ray.nodes()):
            t = time.monotonic()
            try:
                what()
            except ray.exceptions.RayError as e:
                print(type(e).__name__, time.monotonic() - t < 5, str(e).replace("\\n", " "), flush=True)
            if what is not None:
                sys.stdin.readline()
        ray.shutdown()
        print(ray.get(ray.remote(lambda: 2).remote()), flush=True)
    """)
    pid = int(line(driver).split()[0])
    mine = until(lambda: len(family(pid)) >= 4 and family(pid), "the workers")
    stores = stores_of(mine)
    os.kill(pid, signal.SIGKILL)
    none_left(mine)
    for _ in range(3):
        text = line(driver)
        assert re.match(r"LocalRayletDiedError True .*the node daemon .*ray.init", text, re.I), text
        tell(driver)
    assert line(driver) == "2"
    driver.stdin.close()
    assert driver.wait(20) == 0
    assert not stores & set(shared_memory())


@pytest.mark.slow
def test_daemons_of_a_cluster(home):
    """A node that joined, then the head: their workers and memory go with them."""
    head = home.head(cpus=1)
    node = home.node(head["gcs_address"], "--resources", '{"far": 1}', ip="127.0.0.2")
    driver = home.driver("""
        import os, time, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(max_retries=0)
        def hold():
            open(f"held-{os.getpid()}", "w").close()
            time.sleep(1000)
        refs = [hold.remote(), hold.options(resources={"far": 1}).remote()]
        big = ray.put(bytes(1 << 20))
        try:
            ray.get(refs[1])
        except Exception as e:
            print(type(e).__name__, str(e).replace("\\n", " "), flush=True)
        try:
            ray.get(refs[0])
        except Exception as e:
            print(type(e).__name__, str(e).replace("\\n", " "), flush=True)
    """)
    until(lambda: len(list(home.folder.glob("held-*"))) == 2, "both tasks run")
    for one in (node, head):
        mine = family(one["pid"])
        stores = stores_of(mine)
        assert len(mine) >= 3 and stores
        began = time.monotonic()
        os.kill(one["pid"], signal.SIGKILL)
        none_left(mine)
        text = line(driver)
        assert time.monotonic() - began < 15
        if one is head:
            assert not stores & set(shared_memory()) or driver.wait(10) == 0
        else:
            assert node["node_id"] in text or "127.0.0.2" in text, text
    driver.wait(10)
    home.ray("stop")
    assert not list(home.root.glob("session_2*/sockets/*")) and not list(home.root.glob("session_2*/nodes/*"))


def test_newest_ten_sessions_stay(home):
    names = []
    for _ in range(12):
        out = home.python("""
            import os, ray
            c = ray.init(num_cpus=1, object_store_memory=80 << 20, configure_logging=False)
            print(os.path.basename(c["session_dir"]))
        """)
        names.append(out.strip())
    left = sorted(p.name for p in home.root.glob("session_2*"))
    assert left == sorted(names)[-10:]


def test_no_core_dump_holds_the_token(home):
    """A daemon that crashes, by a signal that dumps core in others, leaves none; nor is the token in its logs or workers."""
    most = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        pytest.skip("this user may not have core dumps")
    libc = ctypes.CDLL(None, use_errno=True)
    subreaper = 36  # PR_SET_CHILD_SUBREAPER: the daemon's end is told to us
    assert libc.prctl(subreaper, 1, 0, 0, 0) == 0
    try:
        other = home.driver("import os; os.abort()")
        _, status = os.waitpid(other.pid, 0)
        other.returncode = 0
        if not os.WCOREDUMP(status):
            pytest.skip("this machine dumps no core")
        head = home.head(env={"GOTRACEBACK": "crash"})  # Go's runtime ends by SIGABRT
        token = home.ray("get-auth-token").stdout.strip().splitlines()[-1].encode()
        driver = home.driver("""
            import os, ray
            ray.init("auto", log_to_driver=False)
            @ray.remote
            def seen():
                return open("/proc/self/environ").read() + open("/proc/self/cmdline").read() + str(dict(os.environ))
            print(repr(ray.get(seen.remote())), flush=True)
            input()
        """, env={"RAY_AUTH_TOKEN": token.decode()})  # fmt: skip
        assert token.decode() not in line(driver)
        for pid, _ in family(head["pid"]):
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as f:
                    assert token not in f.read(), (pid, name)
        os.kill(head["pid"], signal.SIGQUIT)
        _, status = os.waitpid(head["pid"], 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT, status
        assert not os.WCOREDUMP(status)
        logs = pathlib.Path(head["session_dir"]) / "logs"
        text = b"".join(p.read_bytes() for p in logs.iterdir())
        assert b"goroutine" in text and token not in text
    finally:
        libc.prctl(subreaper, 0, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, most)
