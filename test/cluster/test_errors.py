"""What users are told: one sentence that says what to do, in Ray's class, within 5 s."""

import os
import re
import signal
import socket
import time

import pytest
from machines import line, until, workers_of

TOLD = """
    import time
    began = time.monotonic()
    def told(what):
        try:
            what()
            print("nothing", flush=True)
        except BaseException as e:
            classes = [c.__name__ for c in type(e).__mro__]
            print(time.monotonic() - began < 15, classes, str(e).replace("\\n", " | "), flush=True)
    import ray
"""


def told(home, code, **kwargs):
    """Run ``code``, which calls ``told(lambda: …)``: (its classes, its text)."""
    out = home.python(TOLD + code, **kwargs).splitlines()[-1]
    quick, classes, text = re.fullmatch(r"(True|False) (\[.*?\]) (.*)", out).groups()
    assert quick == "True", out
    return classes, text


def test_no_address(home):
    classes, text = told(home, """
    told(lambda: ray.init("auto", log_to_driver=False))
    """)  # fmt: skip
    assert "ConnectionError" in classes and "specify the one to connect to" in text, text
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    classes, text = told(home, f"""
    told(lambda: ray.init("127.0.0.1:{port}"))
    """)  # fmt: skip
    assert "ConnectionError" in classes and f"127.0.0.1:{port}" in text, text


def test_wrong_token(home, homes):
    head = home.head()
    classes, text = told(home, """
    told(lambda: ray.init("auto", log_to_driver=False))
    """, env={"RAY_AUTH_TOKEN": "0" * 64})  # fmt: skip
    assert "AuthenticationError" in classes and "RAY_AUTH_TOKEN" in text and "0" * 64 not in text, text
    done = home.ray("status", env={"RAY_AUTH_TOKEN": "0" * 64}, check=False)
    assert done.returncode != 0 and "token" in done.stdout, done.stdout
    stranger = homes("stranger")
    done = stranger.ray("status", f"--address={head['gcs_address']}", check=False)
    assert done.returncode != 0 and "token" in done.stdout, done.stdout


def test_head_gone(home):
    head = home.head(cpus=1)
    os.kill(head["pid"], signal.SIGKILL)
    classes, text = told(home, """
    told(lambda: ray.init("auto", log_to_driver=False))
    """)  # fmt: skip
    assert "ConnectionError" in classes, text
    for command in (["status"], ["health-check"], ["start", f"--address={head['gcs_address']}"]):
        began = time.monotonic()
        done = home.ray(*command, check=False)
        assert done.returncode != 0 and time.monotonic() - began < 6, (command, done.stdout)
        assert "Traceback" not in done.stdout and "panic" not in done.stdout


@pytest.mark.slow
def test_infeasible_resources(home):
    """A get that is blocked for 10 s logs why, and again after 20; ray status shows the demand."""
    home.head(cpus=1)
    driver = home.driver("""
        import sys, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote(resources={"unobtainium": 3})
        def f():
            pass
        ref = f.remote()
        print("asked", flush=True)
        try:
            ray.get(ref, timeout=22)
        except ray.exceptions.GetTimeoutError as e:
            print(str(e).replace("\\n", " "), flush=True)
    """)
    assert line(driver) == "asked"
    until(lambda: "unobtainium" in home.ray("status").stdout, "the demand in ray status", 10)
    assert "Get timed out" in line(driver)
    err = driver.stderr.read()
    assert driver.wait(10) == 0
    assert len([r for r in err.splitlines() if "unobtainium" in r]) == 2, err


def test_unpicklable_argument(home):
    classes, text = told(home, """
    import threading
    ray.init(num_cpus=1, log_to_driver=False)
    f = ray.remote(lambda x: x)
    told(lambda: f.remote(threading.Lock()))
    """)  # fmt: skip
    assert "TypeError" in classes and "serialize" in text and "lock" in text, text


def test_unpicklable_result_and_closure(home):
    classes, text = told(home, """
    import threading
    ray.init(num_cpus=1, log_to_driver=False)
    @ray.remote
    def f():
        return threading.Lock()
    told(lambda: ray.get(f.remote()))
    """)  # fmt: skip
    assert "RayTaskError" in classes and "TypeError" in classes and "lock" in text, text
    classes, text = told(home, """
    import threading
    ray.init(num_cpus=1, log_to_driver=False)
    lock = threading.Lock()
    told(lambda: ray.remote(lambda: lock).remote())
    """)  # fmt: skip
    assert "TypeError" in classes and "lock" in text, text


@pytest.mark.parametrize("how", ["signal", "exit", "segfault"])
def test_worker_dies(home, how):
    code = {
        "signal": "os.kill(os.getpid(), 9)",
        "exit": "os._exit(7)",
        "segfault": "import ctypes; ctypes.string_at(0)",
    }[how]
    classes, text = told(home, f"""
    import os, sys
    ray.init(num_cpus=1, log_to_driver=False)
    @ray.remote(max_retries=0)
    def f():
        print("last words of it", file=sys.stderr, flush=True)
        {code}
    told(lambda: ray.get(f.remote()))
    """)  # fmt: skip
    assert "WorkerCrashedError" in classes and "last words of it" in text, text
    assert {"signal": "SIGKILL", "exit": "7", "segfault": "SIGSEGV"}[how] in text, text


def test_worker_dies_until_no_retry_is_left(home, tmp_path):
    runs = tmp_path / "runs"
    classes, text = told(home, f"""
    import os
    ray.init(num_cpus=1, log_to_driver=False)
    @ray.remote
    def f():
        open({str(runs)!r}, "a").write("x")
        os._exit(1)
    told(lambda: ray.get(f.remote()))
    """)  # fmt: skip
    assert "WorkerCrashedError" in classes and runs.read_text() == "x" * 4  # once, and 3 retries


@pytest.mark.slow
def test_store_full(home):
    out = home.python("""
        import os
        import time
        import ray
        ray.init(num_cpus=1, object_store_memory=100 << 20, log_to_driver=False)
        import numpy as np
        held = [ray.get(ray.put(np.ones(30 << 20, np.uint8))) for _ in range(3)]
        began = time.monotonic()
        try:
            ray.put(np.ones(30 << 20, np.uint8))
            print("it fitted")
        except ray.exceptions.ObjectStoreFullError as e:
            print(4 < time.monotonic() - began < 30, str(e).replace("\\n", " "))
        try:
            ray.put(np.ones(200 << 20, np.uint8))
        except ray.exceptions.ObjectStoreFullError as e:
            print(time.monotonic() - began < 40, str(e).replace("\\n", " "))
        del held
        print(len(ray.get(ray.put(np.ones(30 << 20, np.uint8)))))
        print(os.getpid())
    """)  # fmt: skip
    first, second, third, *fields = out.splitlines()
    for text in (first, second):
        assert text.startswith("True ") and re.search(r"\d+(\.\d+)? ?[KMG]i?B", text), text
    assert "90.0 MiB in 3 objects" in first, first
    assert f"(read by driver {fields[0]}; refs in driver" not in first  # the refs are gone, the views are not
    assert first.count(f"(read by driver {fields[0]})") == 3, first
    assert third == str(30 << 20)


def test_busy_ports(home):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        for flag in (
            "--port",
            "--node-manager-port",
            "--dashboard-port",
            "--dashboard-agent-listen-port",
            "--metrics-export-port",
        ):
            began = time.monotonic()
            usual = [] if flag == "--port" else ["--port=0"]
            agent = [] if "agent" in flag else ["--dashboard-agent-listen-port=0"]
            done = home.ray(
                "start", "--head", *usual, *agent, "--node-ip-address=127.0.0.1", f"{flag}={port}", check=False
            )
            last = done.stdout.strip().splitlines()[-1]
            if flag == "--metrics-export-port" and done.returncode == 0:
                home.ray("stop")
                continue
            assert done.returncode != 0 and time.monotonic() - began < 5, (flag, done.stdout)
            assert str(port) in last and flag in last and "in use" in last, (flag, last)
            assert not home.nodes()


@pytest.mark.parametrize(
    "flags",
    [
        ["--head", "--num-cpus=-1"], ["--head", "--num-cpus=many"], ["--head", "--port=70000"], ["--head", "--resources={"],
        ["--head", '--resources={"CPU": 1}'], ["--head", "--object-store-memory=1"], ["--head", "--no-such-flag"], [],
        ["--address=nowhere"], ["--head", "--address=127.0.0.1:1"], ["--head", "--labels=a"], ["--head", "--node-ip-address=203.0.113.7"],
        ["--head", "--temp-dir=/proc/nothing"], ["--head", "--tls=maybe"], ["--head", "--plasma-directory=/nonexistent"],
    ],
    ids=lambda f: " ".join(f)[:40],
)  # fmt: skip
def test_bad_flags(home, flags):
    began = time.monotonic()
    extra = (
        ["--port=0", "--dashboard-agent-listen-port=0"]
        if flags and flags[0] == "--head" and "--port" not in " ".join(flags)
        else []
    )
    done = home.ray("start", *flags, *extra, check=False)
    assert done.returncode != 0 and time.monotonic() - began < 5, done.stdout
    assert "panic" not in done.stdout and "goroutine" not in done.stdout
    assert len(done.stdout.strip().splitlines()) <= 6, done.stdout
    assert not home.nodes()


def test_worker_killed_by_hand(home):
    """As the kernel or an operator would: the task runs again."""
    head = home.head(cpus=1)
    driver = home.driver("""
        import os, sys, time, ray
        ray.init("auto", log_to_driver=False)
        @ray.remote
        def f():
            open(f"run-{os.getpid()}", "w").close()
            while len([n for n in os.listdir() if n.startswith("run-")]) < 2:
                time.sleep(0.01)
            return os.getpid()
        print(ray.get(f.remote()), flush=True)
    """)
    until(lambda: list(home.folder.glob("run-*")), "the first run")
    (first,) = [int(p.name[4:]) for p in home.folder.glob("run-*")]
    assert first in workers_of(head["pid"])
    os.kill(first, signal.SIGKILL)
    assert int(line(driver)) != first
