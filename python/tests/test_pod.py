"""Programs in a pod that is no node of the cluster: they join it by a node of their own, without CPUs.

The pod is this machine with the variables that Kubernetes sets, and another folder of sessions than the cluster's.
"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

import ray
from ray import _address, _daemon

PROGRAM = """
    import os, sys, ray
    import numpy as np
    context = ray.init()
    here = context.address_info["node_id"]

    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0
        def add(self, array):
            self.n += int(array.sum())
            return self.n

    @ray.remote
    def where():
        return ray.get_runtime_context().get_node_id()

    assert here not in ray.get([where.remote() for _ in range(10)])
    ones = ray.put(np.ones(1_000_000, np.int64))
    counter = Counter.remote()
    assert ray.get([counter.add.remote(ones) for _ in range(2)]) == [1_000_000, 2_000_000]
    daemon = [n for n in ray.nodes() if n["NodeID"] == here][0]
    print(here, daemon["Resources"].get("CPU", 0), ray.cluster_resources()["CPU"], len(ray.nodes()), flush=True)
    sys.stdin.readline()
    print(ray.get(where.remote()) != here)
"""


def wait_until(true, timeout=60):
    """Poll until something holds; the bound is for a broken program, not for a slow one."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def pod(cluster, tmp_path):
    """The environment of a pod in a namespace with a cluster of one node, whose Service is its head."""
    cluster.add_node(num_cpus=2)
    host, port = _address.split(cluster.address)
    return {
        **os.environ,
        "RAY_TMPDIR": str(tmp_path / "pod"),
        "RAY_AUTH_TOKEN": _address.token(cluster.head_node._info),
        "KUBERNETES_SERVICE_HOST": "192.0.2.1",
        "RAY_HEAD_SERVICE_HOST": host,
        "RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY": str(port),
    }


def start(code, env):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(code, env):
    done = start(code, env)
    out, err = done.communicate(timeout=120)
    return done.returncode, out, err


def alive():
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}


def guests(env):
    return list(_address.all_nodes(os.path.join(env["RAY_TMPDIR"], "ray")))


def test_a_program_in_a_pod_finds_the_service(cluster, pod):
    program = start(PROGRAM, pod)
    line = program.stdout.readline().split()
    assert line[1:] == ["0", "2.0", "2"], program.communicate("", timeout=60)[1]
    ray.init(cluster.address)
    assert alive() == {cluster.head_node.node_id, line[0]}
    (guest,) = guests(pod)
    assert (guest["node_id"], guest["guest"]) == (line[0], True)
    out, err = program.communicate("\n", timeout=60)
    assert out == "True\n", err
    assert f"Using address {cluster.address} of the Service ray-head" in err
    assert "Connected to Ray cluster." in err
    wait_until(lambda: alive() == {cluster.head_node.node_id})
    assert not guests(pod)


def test_programs_of_one_pod_have_a_node_each(cluster, pod):
    programs = [start(PROGRAM, pod) for _ in range(2)]
    first, second = (p.stdout.readline().split()[0] for p in programs)
    assert first != second
    out, err = programs[0].communicate("\n", timeout=60)
    assert out == "True\n", err
    out, err = programs[1].communicate("\n", timeout=60)  # the first one's node has gone
    assert out == "True\n", err


def test_others_start_nothing_on_it(cluster, pod):
    """Not even what needs no CPU: it would end with a program that has nothing to do with it."""
    cluster.add_node(num_cpus=1)
    program = start(PROGRAM, pod)
    guest = program.stdout.readline().split()[0]
    ray.init(cluster.address)
    where = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(lambda: ray.get_runtime_context().get_node_id())
    assert guest in alive()
    ran = set(ray.get([where.remote() for _ in range(40)]))
    assert ran == alive() - {guest}
    out, err = program.communicate("\n", timeout=60)
    assert out == "True\n", err


def test_a_program_that_is_killed_leaves_no_node(cluster, pod):
    program = start(PROGRAM, pod)
    assert program.stdout.readline()
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=60)
    wait_until(lambda: not guests(pod))
    ray.init(cluster.address)
    wait_until(lambda: alive() == {cluster.head_node.node_id})


def test_again_after_a_shutdown(pod):
    code = """
        import ray
        one = ray.remote(lambda: 1)
        nodes = set()
        for _ in range(2):
            with ray.init() as context:
                nodes.add(context.address_info["node_id"])
                assert ray.get(one.remote()) == 1
        print(len(nodes))
    """
    assert run(code, pod)[1] == "2\n"


def test_an_address_counts_for_more_than_the_service(cluster, pod):
    code = "import ray; print(ray.init(%s).address_info['gcs_address'])"
    env = {**pod, "RAY_HEAD_SERVICE_HOST": "192.0.2.2"}
    assert run(code % repr(cluster.address), env)[1] == cluster.address + "\n"
    assert run(code % "", {**env, "RAY_ADDRESS": cluster.address})[1] == cluster.address + "\n"
    assert run(code % "'auto'", {**pod, "RAY_ADDRESS": "local"})[1] == cluster.address + "\n"
    status, out, err = run(code % "'local'", pod)
    assert status == 0 and out.strip() not in ("", cluster.address), err


def test_a_node_that_runs_in_the_pod_is_used(cluster, pod):
    code = "import ray; c = ray.init(); print(c.address_info['node_id'], c.address_info['gcs_address'])"
    env = {**pod, "RAY_TMPDIR": os.environ["RAY_TMPDIR"]}
    for address in (cluster.address, ""):
        assert run(code, {**env, "RAY_ADDRESS": address})[1].split() == [cluster.head_node.node_id, cluster.address]


def test_no_head_behind_the_service(pod):
    with socket.socket() as s:  # bound, and so nobody else's, but not listening
        s.bind(("127.0.0.1", 0))
        env = {**pod, "RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY": str(s.getsockname()[1])}
        status, _, err = run("import ray; ray.init()", env)
    assert status == 1
    assert "Connection refused. Check with `kubectl get pods` that the head's pod is ready" in err.splitlines()[-1]
    assert "ConnectionError" in err.splitlines()[-1]


def test_without_the_right_token(pod):
    status, _, err = run("import ray; ray.init()", {**pod, "RAY_AUTH_TOKEN": "x" * 64})
    assert status == 1
    assert "AuthenticationError" in err, err
    assert not guests(pod)


def test_outside_of_a_pod_the_service_means_nothing(pod, cluster):
    env = {**pod, "KUBERNETES_SERVICE_HOST": ""}
    status, out, err = run("import ray; print(ray.init().address_info['gcs_address'])", env)
    assert status == 0 and out.strip() != cluster.address, err


@pytest.mark.parametrize(
    "env,want",
    [
        ({"RAY_HEAD_SERVICE_HOST": "10.0.0.1"}, "10.0.0.1:6379"),
        ({"RAY_HEAD_SERVICE_HOST": "10.0.0.1", "RAY_HEAD_SERVICE_PORT_GCS_SERVER": "1"}, "10.0.0.1:1"),
        ({"RAY_HEAD_SERVICE_HOST": "fd00::1", "RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY": "2"}, "[fd00::1]:2"),
        ({}, None),
    ],
)
def test_the_service_s_address(monkeypatch, env, want):
    for name in ("RAY_HEAD_SERVICE_HOST", "RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY", "RAY_HEAD_SERVICE_PORT_GCS_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.254")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert _address.service_address() == want
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert _address.service_address() is None


def test_commands_find_the_service_too(cluster, pod):
    def status(env):
        command = [_daemon.binary(), "status"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    assert "Resources" in status(pod).stdout
    outside = status({**pod, "KUBERNETES_SERVICE_HOST": ""})
    assert outside.returncode == 1 and "Could not find any running Ray instance" in outside.stderr


def test_a_detached_actor_outlives_the_program_that_made_it(cluster, pod):
    code = """
        import ray
        ray.init(namespace="mine")

        @ray.remote
        class Board:
            def __init__(self):
                self.n = 0
            def add(self):
                self.n += 1
                return self.n

        board = Board.options(name="board", lifetime="detached", get_if_exists=True).remote()
        print(ray.get(board.add.remote()))
    """
    assert run(code, pod)[1] == "1\n"
    assert run(code, pod)[1] == "2\n"
