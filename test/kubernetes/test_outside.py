"""A program outside of Kubernetes, on a cluster inside: kubectl port-forward and ray://, as docs/kubernetes.md has it."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import kube
import pytest

PROGRAM = """
import ray
with ray.init(logging_level="error"):
    @ray.remote
    def where(x):
        import socket
        return socket.gethostname(), len(x)
    data = bytes(30_000_000)
    ref = ray.put(data)
    seen = {host for host, n in ray.get([where.options(scheduling_strategy="SPREAD").remote(ref) for _ in range(40)]) if n == len(data)}
    assert ray.get(ref) == data
    print("hosts", *sorted(seen))
"""


@contextmanager
def forwarded(space):
    """The local port that leads to the head's 10001."""
    command = space.command("port-forward", "--address", "127.0.0.1", "deployment/ray-head", ":10001")
    tunnel = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = tunnel.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) -> 10001", line)
        assert found, line
        yield found.group(1)
    finally:
        tunnel.terminate()
        tunnel.wait()


def needs_its_python(space):
    version = space.run(space.head(), "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    if version != "%d.%d" % sys.version_info[:2]:
        pytest.skip("the image has Python %s, and a client needs the same" % version)


def check_hosts(space, printed):
    hosts = printed.split("hosts ")[1].split()
    assert len(hosts) >= 2 and set(hosts) <= {p["metadata"]["name"] for p in space.pods()}


def program(port, token, folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env.update(RAY_ADDRESS="ray://127.0.0.1:" + port, HOME=str(folder))
    if token:
        env["RAY_AUTH_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_a_program_outside_works_on_the_pods(space, tmp_path):
    space("apply", "-f", kube.CLUSTER)
    space.ready(4)
    kube.until(lambda: space.alive() == 4, "all nodes", 60, space.story)
    needs_its_python(space)
    token = space("exec", "deploy/ray-head", "--", "ray", "get-auth-token").strip()
    with forwarded(space) as port:
        done = program(port, token, tmp_path)
        assert done.returncode == 0, done.stdout
        check_hosts(space, done.stdout)
        refused = program(port, "", tmp_path)
        assert refused.returncode == 1 and "kubectl exec deploy/ray-head -- ray get-auth-token" in refused.stdout
