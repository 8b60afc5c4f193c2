"""Fixtures: environments of users on this machine, each with its own home and temp dir, so that tests can run side by side."""

import importlib.util
import os
import pathlib

import pytest
from machines import Home


@pytest.fixture(scope="session")
def binary():
    """The Gray binary under test."""
    spec = importlib.util.find_spec("ray")
    places = [os.environ.get("GRAY_BIN")]
    if spec is not None:
        places.append(str(pathlib.Path(spec.origin).parent / "_bin" / "ray"))
    for path in places:
        if path and os.path.isfile(path):
            return path
    return pytest.fail("no Gray binary: run `make build`, or name it in GRAY_BIN")


@pytest.fixture
def home(binary, tmp_path):
    """A user's environment."""
    made = Home(tmp_path, binary)
    yield made
    made.close()


@pytest.fixture
def homes(binary, tmp_path):
    """Makes environments: ``homes(name, user=…, netns=…)``."""
    made = []

    def make(name, **kwargs):
        made.append(Home(tmp_path / name, binary, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()
