"""Private clusters: starting, ending, starting again; what stays behind; what a driver's end does."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest

import ray
from ray import _address, _daemon, _init


@ray.remote
def one():
    return 1


def wait_until(true, timeout=20):
    """Poll until something holds; the bound is for a broken program, not for a slow one."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def run(code, env=None, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        **kwargs,
    )


def children(pid):
    """All living descendants of a process."""
    found, left = [], [pid]
    while left:
        parent = left.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    kids = [int(p) for p in f.read().split()]
            except OSError:
                continue
            found += kids
            left += kids
    return found


def test_context(own_env):
    context = ray.init(num_cpus=1)
    info = context.address_info
    assert set(info) == set(
        "node_ip_address redis_address object_store_address raylet_socket_name webui_url session_dir metrics_export_port "
        "gcs_address address dashboard_agent_listen_port node_id".split()
    )
    assert context.address_info["address"] == info["gcs_address"] == ray.get_runtime_context().gcs_address
    assert context.address_info["node_id"] == ray.get_runtime_context().get_node_id() and len(context) == 11
    assert context.ray_version == ray.__version__ and context.python_version == ".".join(map(str, sys.version_info[:3]))
    assert context.dashboard_url == "" and repr(context).startswith("RayContext(dashboard_url='', python_version=")
    assert info["session_dir"].startswith(str(own_env)) and info["redis_address"] is None
    assert ray.is_initialized()
    with context:
        assert ray.get(one.remote()) == 1
    assert not ray.is_initialized()


def test_twice(own_env, capsys):
    context = ray.init(num_cpus=1)
    with pytest.raises(RuntimeError, match="Maybe you called ray.init twice by accident"):
        ray.init()
    assert ray.init(ignore_reinit_error=True)["node_id"] == context.address_info["node_id"]
    err = capsys.readouterr().err
    assert "Calling ray.init() again after it has already been called." in err
    assert "INFO" in err and "Started a local Ray instance." in err


def test_programs_of_the_time_of_redis(own_env):
    """They name the password that `ray start` printed then; nothing here has one."""
    ray.init(num_cpus=1, _redis_password="5241590000000000")
    assert ray.is_initialized()


def test_again_and_again(own_env):
    def fds():
        return len(os.listdir("/proc/self/fd"))

    import threading

    counts = []
    jobs = set()
    for i in range(20):
        context = ray.init(num_cpus=1, object_store_memory=80 << 20)
        assert ray.get(one.remote()) == 1
        jobs.add((context.address_info["session_dir"], ray.get_runtime_context().get_job_id()))  # a port may come again
        ray.shutdown()
        ray.shutdown()
        if i >= 2:
            counts.append((fds(), threading.active_count()))
        assert not children(os.getpid())
    assert len(set(counts)) == 1, counts
    assert len(jobs) == 20 and {job for _, job in jobs} == {"01000000"}
    root = _address.root_dir()
    assert list(_address.all_nodes(root)) == []
    assert len([n for n in os.listdir(root) if n.startswith("session_2")]) <= 10


def test_auto_init(own_env):
    done = run(
        """
        import ray
        @ray.remote
        def f(x):
            return x + 1
        print(ray.get(f.remote(1)), ray.is_initialized())
        """
    )
    assert done.stdout == "2 True\n", done.stderr
    assert "Started a local Ray instance." in done.stderr and "Traceback" not in done.stderr


def test_log_off(own_env):
    done = run("import ray; ray.init(num_cpus=1, configure_logging=False); print(ray.get(ray.put(1)))")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_second_driver_and_job_ids(own_env):
    context = ray.init(num_cpus=1)
    code = """
        import ray, sys
        ray.init(sys.argv[1]) if len(sys.argv) > 1 else ray.init()
        @ray.remote
        def f():
            return ray.get_runtime_context().get_job_id()
        print(ray.get(f.remote()), ray.get_runtime_context().get_job_id())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), context.address_info["address"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "02000000 02000000\n", done.stderr
    assert f"Connecting to existing Ray cluster at address: {context['address']}..." in done.stderr
    assert "Connected to Ray cluster." in done.stderr
    done = run(code, env={"RAY_ADDRESS": context.address_info["address"]})
    assert done.stdout == "03000000 03000000\n", done.stderr
    assert f"Using address {context['address']} set in the environment variable RAY_ADDRESS" in done.stderr
    assert ray.get(one.remote()) == 1


def test_namespace_and_job_settings(own_env):
    ray.init(num_cpus=1, namespace="mine", runtime_env={"env_vars": {"OF_JOB": "yes"}}, labels={"zone": "a"})
    assert ray.get_runtime_context().namespace == "mine"

    @ray.remote
    def look():
        c = ray.get_runtime_context()
        return c.namespace, os.environ.get("OF_JOB"), c.runtime_env.env_vars(), c.get_node_labels().get("zone")

    assert ray.get(look.remote()) == ("mine", "yes", {"OF_JOB": "yes"}, "a")
    assert ray.get_runtime_context().runtime_env == {"env_vars": {"OF_JOB": "yes"}}


def test_env_vars_expand_from_the_workers_environment(own_env, monkeypatch):
    monkeypatch.setenv("BASE", "/base")
    env = {"OF_JOB": "${BASE}/job:$BASE", "LOST": "<${NOT_THERE_}>", "PRICE": "5$"}
    ray.init(num_cpus=1, runtime_env={"env_vars": env})

    @ray.remote
    def look(*names):
        return [os.environ.get(n) for n in names], dict(ray.get_runtime_context().runtime_env.env_vars())

    assert ray.get(look.remote("OF_JOB", "LOST", "PRICE")) == (["/base/job:/base", "<>", "5$"], env)
    own = look.options(runtime_env={"env_vars": {"BASE": "${BASE}/more", "OF_TASK": "${BASE}"}})
    assert ray.get(own.remote("BASE", "OF_TASK", "OF_JOB"))[0] == ["/base/more", "/base", "/base/job:/base"]


def test_resources(own_env):
    ray.init(num_cpus=3, num_gpus=2, resources={"x": 4}, _memory=10**9, _node_name="n")
    total = ray.cluster_resources()
    assert (total["CPU"], total["GPU"], total["x"], total["memory"]) == (3, 2, 4, 10**9)
    assert ray.nodes()[0]["NodeName"] == "n"

    @ray.remote(num_gpus=1, num_cpus=0, resources={"x": 1})
    def held():
        c = ray.get_runtime_context()
        return c.get_assigned_resources(), ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

    resources, gpus, visible = ray.get(held.remote())
    assert resources == {"GPU": 1.0, "x": 1.0} and gpus in ([0], [1]) and visible == str(gpus[0])


def test_too_little_shared_memory_is_told(own_env, capsys):
    """The log of a daemon that ray.init() starts is seen by nobody."""
    free = {d: os.statvfs(d).f_bavail * os.statvfs(d).f_frsize for d in ("/dev/shm", os.environ["RAY_TMPDIR"])}
    store = free["/dev/shm"]
    if store < 80 << 20 or max(free.values()) < store + (1 << 30) or min(free.values()) != store:
        pytest.skip("the sessions' disk has not more room than /dev/shm")
    ray.init(num_cpus=1, object_store_memory=store)
    assert ray.get(ray.put(b"x" * 1_000_000)) == b"x" * 1_000_000
    err = capsys.readouterr().err
    assert "WARNING" in err and "/dev/shm has " in err and "which is slower" in err


def test_the_binary_is_missing(own_env, monkeypatch):
    monkeypatch.setenv("GRAY_BIN", "/nonexistent/ray")
    with pytest.raises(FileNotFoundError, match="The Gray binary is not at /nonexistent/ray: install the wheel"):
        ray.init()
    assert not ray.is_initialized()


def test_a_daemon_that_ends_at_once(own_env, monkeypatch, tmp_path):
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho 'panic: everything' >&2\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setenv("GRAY_BIN", str(script))
    with pytest.raises(RuntimeError, match="The node daemon ended before it was ready. It wrote:\npanic: everything"):
        ray.init()
    assert not children(os.getpid())


def test_what_a_daemon_says_when_it_cant_start(own_env, monkeypatch, tmp_path):
    script = tmp_path / "refuses"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "config, ready = int(sys.argv[3]), int(sys.argv[5])\n"
        "assert os.read(config, 1)\n"
        'os.write(ready, b\'{"error": "no room for it", "kind": "SYSTEM"}\\n\')\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("GRAY_BIN", str(script))
    with pytest.raises(RuntimeError, match="no room for it"):
        ray.init()


def test_nothing_secret_in_argv_or_environment(own_env):
    context = ray.init(num_cpus=1)
    with open(os.path.join(context.address_info["session_dir"], "auth_token")) as f:
        token = f.read().strip()
    assert len(token) >= 32
    for pid in children(os.getpid()):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as f:
                    assert token.encode() not in f.read()
            except PermissionError:  # the daemon hides its own memory
                continue
    mode = os.stat(context.address_info["session_dir"]).st_mode & 0o777
    assert mode == 0o700


def test_descriptors_of_the_driver_stay_with_it(own_env):
    r, w = os.pipe()
    os.set_inheritable(w, True)
    ray.init(num_cpus=1)
    os.close(w)
    assert os.read(r, 1) == b""  # nobody else holds the writing end
    os.close(r)


@pytest.mark.parametrize("how", ["exit", "kill", "term"])
def test_nothing_is_left_of_a_driver(own_env, how):
    code = """
        import os, signal, sys, ray
        c = ray.init(num_cpus=2)
        @ray.remote
        def pid():
            return os.getpid()
        ray.get([pid.remote() for _ in range(20)])
        print(ray._init._private.pid, flush=True)
        sys.stdin.readline()
        how = sys.argv[1]
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "term":
            os.kill(os.getpid(), signal.SIGTERM)
    """
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    daemon = int(driver.stdout.readline())
    below = [daemon, *children(daemon)]
    assert len(below) >= 3
    started = {pid: _address.start_time(pid) for pid in below}
    _, err = driver.communicate("go\n", timeout=60)
    assert driver.returncode == {"exit": 0, "kill": -signal.SIGKILL, "term": signal.SIGTERM}[how]
    assert "Traceback" not in err
    wait_until(
        lambda: not any(started[p] is not None and _address.lives(p, started[p]) and not zombie(p) for p in below)
    )


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_ctrl_c_does_not_reach_the_cluster(own_env):
    context = ray.init(num_cpus=1)
    daemon = _init._private.pid
    assert os.getsid(daemon) == daemon != os.getsid(0)
    os.kill(daemon, signal.SIGINT)
    os.kill(daemon, signal.SIGHUP)
    assert ray.get(one.remote()) == 1 and context.address_info["address"]


def test_config_travels_by_pipe(own_env):
    daemon = _daemon.start({"head": True, "private": True, "driver_pid": os.getpid(), "num_cpus": 1,
                            "driver_start_time": _address.start_time(os.getpid())})  # fmt: skip
    try:
        with open(f"/proc/{daemon.pid}/cmdline", "rb") as f:
            argv = f.read().split(b"\0")[:-1]
        assert argv[1:2] == [b"daemon"] and len(argv) == 6
        assert daemon.alive() and daemon.info["head"] and json.dumps(daemon.info)
    finally:
        daemon.stop()
    assert not daemon.alive()
    daemon.stop()


def test_context_as_a_mapping(ray_2):
    with pytest.warns(DeprecationWarning, match=r'ctx\["address"\] is deprecated. Use ctx.address_info\["address"\]'):
        assert ray_2["address"] == ray_2.address_info["address"]
    with pytest.warns(UserWarning, match=r"len\(ctx\) is deprecated"):
        assert len(ray_2) == 11
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ray_2 and any(key == "address" for key in ray_2) and ray_2.get("nope") is None
        assert ray_2 != ray_2.address_info and ray_2 == ray.init(ignore_reinit_error=True)
    with pytest.raises(KeyError, match="nope"):
        ray_2["nope"]
