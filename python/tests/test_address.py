"""Which cluster an address means: planted session folders, with this process in the part of the daemon."""

import json
import os
import socket
import subprocess
import sys

import pytest

import ray
from ray import _address, _init

ME = os.getpid()


def plant(root, session="session_2026-01-01_00-00-00_000000_1", node_id="ab" * 28, **fields):
    """Write a node file as a daemon does; returns its content."""
    folder = root / session / "nodes"
    folder.mkdir(parents=True, exist_ok=True)
    token = root / session / "auth_token"
    token.write_text("secret\n")
    node = {
        "node_id": node_id,
        "node_ip": "127.0.0.1",
        "gcs_address": "127.0.0.1:6379",
        "socket": str(root / session / "sockets" / "raylet"),
        "pid": ME,
        "start_time": _address.start_time(ME),
        "head": True,
        "private": False,
        "session_name": session,
        "session_dir": str(root / session),
        "token_file": str(token),
        **fields,
    }
    (folder / f"{node_id}.json").write_text(json.dumps(node))
    return node


@pytest.fixture(autouse=True)
def clean_env(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_address, "_APPEAR_S", 0)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


def current(root, address):
    (root / "ray_current_cluster").write_text(address + "\n")


def test_root(tmp_path, monkeypatch):
    assert _address.root_dir() == str(tmp_path / "ray")
    assert _address.root_dir("x") == os.path.abspath("x")
    monkeypatch.delenv("RAY_TMPDIR")
    assert _address.root_dir() in ("/tmp/ray", f"/tmp/ray-{os.getuid()}")


OF_ENV = "set in the environment variable RAY_ADDRESS"


@pytest.mark.parametrize(
    "address,env,want",
    [
        (None, None, ("127.0.0.1:6379", None)),
        ("auto", None, ("127.0.0.1:6379", None)),
        ("local", None, (None, None)),
        (None, "local", (None, None)),
        ("auto", "local", ("127.0.0.1:6379", None)),
        (None, "auto", ("127.0.0.1:6379", None)),
        (None, "10.0.0.1:7", ("10.0.0.1:7", OF_ENV)),
        ("auto", "10.0.0.1:7", ("10.0.0.1:7", OF_ENV)),
        ("local", "10.0.0.1:7", (None, None)),
        ("10.0.0.2:8", "10.0.0.1:7", ("10.0.0.2:8", None)),
        ("ray://a:1", None, ("ray://a:1", None)),
    ],
)
def test_resolution(root, monkeypatch, address, env, want):
    plant(root)
    current(root, "127.0.0.1:6379")
    if env:
        monkeypatch.setenv("RAY_ADDRESS", env)
    assert _init._resolve(address, str(root)) == want


def test_no_cluster(root):
    assert _init._resolve(None, str(root)) == (None, None)
    with pytest.raises(
        ConnectionError, match="Could not find any running Ray instance. Please specify the one to connect to"
    ):
        _init._resolve("auto", str(root))
    with pytest.raises(ConnectionError, match="Could not find any running Ray instance"):
        ray.init("auto")


def test_a_cluster_that_has_gone_is_not_current(root):
    plant(root, start_time=1)
    current(root, "127.0.0.1:6379")
    assert _address.current_cluster(str(root)) is None


def test_the_head_is_preferred_then_the_address(root):
    plant(root, node_id="01" * 28, head=False, node_ip="127.0.0.2")
    head = plant(root, node_id="02" * 28, node_ip="127.0.0.3")
    plant(root, node_id="03" * 28, head=False)
    assert _address.find_node(str(root), "127.0.0.1:6379") == head
    os.unlink(root / head["session_name"] / "nodes" / f"{'02' * 28}.json")
    assert _address.find_node(str(root), "127.0.0.1:6379")["node_id"] == "03" * 28
    assert _address.find_node(str(root), "127.0.0.1:6379", "127.0.0.2")["node_id"] == "01" * 28


def test_names_of_this_machine(root):
    node = plant(root)
    assert _address.find_node(str(root), "localhost:6379") == node
    # the head listens at an outer address, and is called by a loopback one
    outer = plant(root, node_id="05" * 28, gcs_address="192.0.2.7:6400", session="session_2026-01-02_00-00-00_000000_1")
    assert _address.find_node(str(root), "127.0.0.1:6400") == outer


def test_nobody_there(root):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        address = f"127.0.0.1:{port}"
        with pytest.raises(
            ConnectionError, match=f"Failed to connect to Ray cluster at {address}: Connection refused. Check that"
        ):
            ray.init(address)
        s.listen()
        with pytest.raises(ConnectionError, match="it answers, but no node of it runs on this machine"):
            ray.init(address)


@pytest.mark.parametrize(
    "address,text",
    [
        ("foo", "Invalid address format: foo"),
        ("foo:bar", r"Unable to parse port number from bar \(full address = foo:bar\)"),
        ("foo:99999", "The port of an address lies between 1 and 65535"),
    ],
)
def test_bad_addresses(root, address, text):
    with pytest.raises(ValueError, match=text):
        ray.init(address)


def test_unknown_scheme():
    with pytest.raises(RuntimeError, match="Module: xx does not exist"):
        ray.init("xx://foo")


def test_links_and_strangers_are_not_followed(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    plant(elsewhere)
    session = "session_2026-01-01_00-00-00_000000_1"
    os.symlink(elsewhere / session, root / session)
    assert list(_address.all_nodes(str(root))) == []
    os.unlink(root / session)
    node = plant(root)
    path = root / session / "nodes" / f"{'ab' * 28}.json"
    os.rename(path, tmp_path / "file.json")
    os.symlink(tmp_path / "file.json", path)
    assert list(_address.all_nodes(str(root))) == []
    os.unlink(path)
    os.mkfifo(path)
    assert list(_address.all_nodes(str(root))) == []
    os.unlink(path)
    path.write_text(json.dumps(node))
    assert list(_address.all_nodes(str(root))) == [node]
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert list(_address.all_nodes(str(root))) == []
    os.symlink(root, tmp_path / "link")
    monkeypatch.undo()
    assert list(_address.all_nodes(str(tmp_path / "link"))) == []


def test_garbage_is_skipped(root):
    node = plant(root)
    folder = root / node["session_name"] / "nodes"
    (folder / "x.json").write_text("{")
    (folder / "y.json").write_text("[]")
    (folder / "z.json").write_text('{"pid": 1, "start_time": "a"}')
    (folder / "other").write_text("{}")
    assert list(_address.all_nodes(str(root))) == [node]


def test_a_pid_that_was_used_again_is_dead(root):
    plant(root, start_time=_address.start_time(ME) + 1)
    assert list(_address.all_nodes(str(root))) == []
    assert _address.start_time(2**22 + 1) is None
    assert not _address.lives(2**22 + 1, None)


def test_a_daemon_that_nobody_reaps_is_gone(root):
    """As in a container whose first process does not reap what falls to it."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = _address.start_time(child.pid)
    plant(root, pid=child.pid, start_time=started)
    assert _address.look_for_node(str(root), "127.0.0.1:6379", patience_s=0) is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _address.look_for_node(str(root), "127.0.0.1:6379", patience_s=0) is None
    child.wait()


def test_token(root, monkeypatch, tmp_path):
    node = plant(root)
    assert _address.token(node) == "secret"
    (tmp_path / "t").write_text(" from path \n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "t"))
    assert _address.token(node) == "from path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from env")
    assert _address.token(node) == "from env"
    assert _address.token({**node, "private": True}) == "secret"


def test_token_that_is_not_there(root, monkeypatch, tmp_path):
    node = plant(root)
    os.unlink(node["token_file"])
    with pytest.raises(ray.exceptions.AuthenticationError, match="No token for the cluster at 127.0.0.1:6379: none in"):
        _address.token(node)
    home = tmp_path / "home" / ".ray"
    home.mkdir(parents=True)
    (home / "auth_token").write_text("mine")
    assert _address.token(node) == "mine"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nothing"))
    with pytest.raises(ray.exceptions.AuthenticationError, match="RAY_AUTH_TOKEN_PATH names .* which can't be read"):
        _address.token(node)


@pytest.mark.parametrize(
    "given,error,text",
    [
        ({"local_mode": True}, RuntimeError, "`local_mode` is no longer supported"),
        ({"foo": 1, "bar": 2}, RuntimeError, r"Unknown keyword argument\(s\): foo, bar"),
        ({"address": "localhost", "logginglevel": 1}, RuntimeError, "logginglevel"),
        ({"_system_config": 5}, TypeError, "The _system_config must be a dict."),
        ({"_system_config": {"a": 1}}, NotImplementedError, "_system_config"),
        ({"namespace": ""}, ValueError, '"" is not a valid namespace'),
        ({"namespace": 5}, TypeError, "namespace must be None or a string"),
        ({"num_cpus": -1}, ValueError, "Resource quantities must be nonnegative. Violated by resource 'CPU'"),
        ({"num_cpus": 1.5}, ValueError, "Resource quantities must all be whole numbers. Violated by resource 'CPU'"),
        ({"num_cpus": "a"}, TypeError, "resource 'CPU' must be a number"),
        (
            {"resources": {"CPU": 1}},
            AssertionError,
            "`CPU` cannot be a custom resource because it is one of the default resources",
        ),
        (
            {"resources": {"memory": 1}},
            AssertionError,
            "`memory` cannot be a custom resource because it is one of the default",
        ),
        ({"resources": {"x": -1}}, ValueError, "Resource quantities must be nonnegative. Violated by resource 'x'"),
        ({"resources": "a"}, TypeError, "resources must be a dict"),
        (
            {"object_store_memory": 5},
            ValueError,
            "Attempting to cap object store memory usage at 5 bytes, but the minimum allowed",
        ),
        ({"labels": {"a b": "a"}}, ValueError, "Invalid label key name `a b`"),
        ({"labels": {"a": "x y"}}, ValueError, "Invalid label value `x y`"),
        ({"labels": 5}, TypeError, "labels must be a dict"),
        ({"runtime_env": 5}, TypeError, "runtime_env must be a dict"),
        ({"runtime_env": {"pip": ["x"]}}, NotImplementedError, "runtime environments with 'pip'"),
        ({"job_config": 5}, TypeError, "job_config must be a ray.job_config.JobConfig"),
        ({"logging_config": 5}, TypeError, "logging_config must be a ray.LoggingConfig"),
        ({"logging_level": "xyz"}, ValueError, "Unknown level: 'XYZ'"),
        ({"include_dashboard": True}, NotImplementedError, "the dashboard"),
        ({"dashboard_port": 8265}, NotImplementedError, "the dashboard"),
        ({"enable_resource_isolation": True}, NotImplementedError, "resource isolation"),
        ({"object_spilling_directory": "/x"}, NotImplementedError, "spilling"),
        ({"_metrics_export_port": 1}, NotImplementedError, "metrics"),
    ],
)
def test_bad_arguments(given, error, text, monkeypatch):
    monkeypatch.setattr("ray._daemon.start", lambda config: pytest.fail("a daemon was started"))
    with pytest.raises(error, match=text):
        ray.init(**given)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    "name,value",
    [
        ("num_cpus", 1),
        ("num_gpus", 1),
        ("resources", {"a": 1}),
        ("labels", {"a": "1"}),
        ("object_store_memory", 10**8),
        ("_system_config", {"a": 1}),
        ("_enable_object_reconstruction", True),
        ("_node_name", "x"),
    ],
)
def test_what_an_existing_cluster_has_already(root, name, value):
    plant(root)
    shown = "num_cpus and num_gpus" if name.startswith("num_") else name
    with pytest.raises(ValueError, match=f"When connecting to an existing cluster, {shown} must not be provided."):
        ray.init("127.0.0.1:6379", **{name: value})


def test_config_of_a_private_cluster():
    given = dict.fromkeys("num_cpus num_gpus resources labels object_store_memory".split())
    given.update(num_cpus=2, _memory=1e9, _temp_dir="/x", labels={"a": "b"}, _there_later=[])
    config = _init._config(given)
    assert config == {
        "head": True,
        "private": True,
        "temp_dir": "/x",
        "num_cpus": 2,
        "labels": {"a": "b"},
        "memory": 10**9,
        "driver_pid": ME,
        "driver_start_time": _address.start_time(ME),
        "dashboard": False,
    }
    assert all(type(config[k]) is int for k in ("num_cpus", "memory"))
