"""The examples, each as a user would run it: alone on this machine, to its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(tmp_path, name, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env.update(HOME=str(tmp_path), RAY_TMPDIR=str(tmp_path), TMPDIR="/tmp")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_pi(tmp_path):
    assert "1,600,000 darts: pi is 3.14006, off by 0.00154" in run(tmp_path, "pi.py")


def test_tree_of_actors(tmp_path):
    assert "A tree of 7 actors in 7 processes." in run(tmp_path, "tree_of_actors.py")
    assert "A tree of 13 actors in 13 processes." in run(tmp_path, "tree_of_actors.py", "--fanout=3")


def test_parameter_server(tmp_path):
    pytest.importorskip("numpy")
    out = run(tmp_path, "parameter_server.py")
    assert "synchronous:  93.8%" in out  # always the same sums
    assert "asynchronous:" in out  # depends on who is first; it checks itself
