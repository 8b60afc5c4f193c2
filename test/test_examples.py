"""The examples, each as a user would run it: alone on this machine, to its end."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(tmp_path, name, *args, status=0):
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env.update(HOME=str(tmp_path), RAY_TMPDIR=str(tmp_path), TMPDIR="/tmp")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == status, done.stdout
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


TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(
    not TORCH, reason="there is no torch here; test/kubernetes/test_training.py runs it in pods that have it"
)
def test_training_together_and_alone(tmp_path):
    out = run(tmp_path, "kubernetes/train.py", "--check", "--workers=2", "--steps=50")
    assert "a network of 3,217 weights" in out
    assert float(re.search(r"at most (\S+) apart", out).group(1)) < 1e-6
    assert out.splitlines()[-1] == "Success!"
    assert list(tmp_path.glob("loss.*"))


@pytest.mark.skipif(TORCH, reason="torch is here")
def test_training_without_torch_says_where_to_get_it(tmp_path):
    pytest.importorskip("numpy")
    out = run(tmp_path, "kubernetes/train.py", status=1)
    assert out.splitlines()[-1].startswith("Workers can't import torch: `pip install torch` here")


@pytest.fixture
def train():
    pytest.importorskip("numpy")
    spec = importlib.util.spec_from_file_location("train", EXAMPLES / "kubernetes" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_descent_finds_the_lowest_point(train):
    import numpy as np

    losses = train.train(np.array([5.0, -3.0]), lambda w, step: (float(w @ w) / 2, w), 200)
    assert losses[0] == 17 and losses[-1] < 1e-3


def test_a_loss_is_drawn_without_matplotlib(train, tmp_path, monkeypatch):
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    path = train.draw([1.0, 0.1, 0.01], str(tmp_path / "loss.png"))
    assert path == str(tmp_path / "loss.svg")
    (line,) = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert points == [(50, 50), (300, 200), (550, 350)]  # a straight line down: the scale is logarithmic
