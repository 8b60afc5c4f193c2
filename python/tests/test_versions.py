"""Programs of other versions are refused at once, by a sentence with both versions and what to do."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import ray
from ray import _address, _daemon
from ray._core import greeting, wire

MINE = "%d.%d" % sys.version_info[:2]


@pytest.fixture
def address(cluster):
    return cluster.add_node(num_cpus=1).address


def refused(error, *parts):
    text = str(error.value)
    assert all(p in text for p in parts), text
    assert "\n" not in text.strip() and not ray.is_initialized()


def test_driver_of_another_ray(address, monkeypatch):
    mine = ray.__version__
    monkeypatch.setattr(ray, "__version__", "2.99.0+gray9")
    with pytest.raises(RuntimeError) as error:
        ray.init(address)
    refused(error, "2.99.0+gray9", mine, f'pip install "ray=={mine}"')
    monkeypatch.undo()


def test_driver_of_another_protocol(address, monkeypatch):
    monkeypatch.setattr(wire, "PROTOCOL", 77)
    with pytest.raises(RuntimeError) as error:
        ray.init(address)
    refused(error, "protocol 1 ", "speaks 77", f'pip install "ray=={ray.__version__}"')


def test_driver_of_another_python(address, monkeypatch):
    monkeypatch.setattr(greeting, "sys", SimpleNamespace(version_info=(3, 7, 1)))
    with pytest.raises(RuntimeError) as error:
        ray.init(address)
    refused(error, f"Python {MINE}", "Python 3.7", "run the driver with Python " + MINE)


def join(cluster, tmp_path, python):
    config = {"head": False, "private": False, "address": cluster.address, "num_cpus": 1, "node_ip": "127.0.0.1"}
    config.update(object_store_memory=80 << 20, temp_dir=str(tmp_path), python=str(python))
    return _daemon.start(config, {"RAY_AUTH_TOKEN": _address.token(cluster.head_node._info)})


def test_daemon_of_another_python(cluster, address, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.7\n")
    python.chmod(0o700)
    with pytest.raises(RuntimeError) as error:
        join(cluster, tmp_path, python)
    refused(error, "Python 3.7", f"Python {MINE}", "pip install")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    join(cluster, tmp_path, python).stop()


def test_interpreter_that_is_none(cluster, address, tmp_path):
    with pytest.raises(RuntimeError, match="/no/such/python.*no such file"):
        join(cluster, tmp_path, "/no/such/python")


@pytest.mark.parametrize("other", [p for p in os.environ.get("GRAY_OTHER_PYTHONS", "").split(os.pathsep) if p])
def test_a_real_other_interpreter(cluster, address, tmp_path, other):
    """``make pythons`` names interpreters that have this very ray, by other Pythons."""
    script = "import sys, ray; print('%d.%d' % sys.version_info[:2], flush=True); ray.init(sys.argv[1])"
    ran = subprocess.run(
        [other, "-c", script, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60
    )
    version = ran.stdout.strip()
    assert version and version != MINE
    last = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 1 and last.startswith("RuntimeError: ")
    assert f"Python {version}" in last and f"Python {MINE}" in last
    with pytest.raises(RuntimeError) as error:
        join(cluster, tmp_path, other)
    refused(error, f"Python {version}", f"Python {MINE}")
