"""Fixtures: clusters of real daemons, each in a folder of its own, so that tests can run side by side."""

import importlib.util
import os
import pathlib
import sys

import pytest

SOURCES = pathlib.Path(__file__).resolve().parent.parent
if importlib.util.find_spec("ray") is None:
    sys.path.insert(0, str(SOURCES))


def _package():
    """The folder of the ``ray`` under test: the installed one, or that of the sources."""
    return pathlib.Path(importlib.util.find_spec("ray").origin).parent


def _binary():
    """The binary under test, or None."""
    for path in (os.environ.get("GRAY_BIN"), _package() / "_bin" / "ray", SOURCES / "ray" / "_bin" / "ray"):
        if path and os.path.isfile(path):
            return str(path)
    return None


@pytest.fixture(scope="session")
def binary():
    """The path of the Gray binary; tests that need it are skipped where there is none, unless GRAY_TEST_DAEMON=1."""
    path = _binary()
    if path is None:
        text = "no Gray binary: set GRAY_BIN or run `make build`"
        if os.environ.get("GRAY_TEST_DAEMON") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return path


def _plain_env(monkeypatch, binary, folder):
    for name in (
        "RAY_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_NAMESPACE",
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        "KUBERNETES_SERVICE_HOST",
        "RAY_HEAD_SERVICE_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRAY_BIN", binary)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("HOME", str(folder))  # the token of clusters that are not private
    # Workers get the folder of the driver's script, sys.path[0], where pytest puts the folder that it collected last.
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    if _package().parent == SOURCES:
        paths = (str(SOURCES), os.environ.get("PYTHONPATH", ""))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture
def own_env(binary, tmp_path, monkeypatch):
    """An environment in which clusters see nothing of this machine's others."""
    _plain_env(monkeypatch, binary, tmp_path)
    import ray

    yield tmp_path
    ray.shutdown()


@pytest.fixture
def ray_2(own_env):
    """A private cluster with 2 CPUs, and a connection to it."""
    import ray

    yield ray.init(num_cpus=2, object_store_memory=100 << 20)
    ray.shutdown()


@pytest.fixture(scope="module")
def shared_ray(binary, tmp_path_factory):
    """A private cluster with 4 CPUs for all tests of a file."""
    import ray

    monkeypatch = pytest.MonkeyPatch()
    _plain_env(monkeypatch, binary, tmp_path_factory.mktemp("session"))
    yield ray.init(num_cpus=4, object_store_memory=200 << 20)
    ray.shutdown()
    monkeypatch.undo()


@pytest.fixture
def leaves_nothing():
    """After the test, which has a cluster, the daemon that this process is connected to keeps nothing of it."""
    yield
    import gc
    import time

    from ray import _core

    gc.collect()
    deadline = time.monotonic() + 60
    while True:
        left = _core.call("tables")["left"]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture
def cluster(own_env):
    """An empty ``ray.cluster_utils.Cluster``, ended after the test."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster()
    yield made
    ray.shutdown()
    made.shutdown()
