"""The demo, as `make demo` runs it: four nodes by the command, tasks that hop over all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo.py"


@pytest.mark.slow
def test_tasks_hop_from_and_to_every_node(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env.update(HOME=str(tmp_path), TMPDIR="/tmp")
    done = subprocess.run(
        [sys.executable, DEMO], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout
    assert "Success!" in done.stdout
    assert "All 16 pairs" in done.stdout
