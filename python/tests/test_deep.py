"""Tasks that wait for tasks, much deeper than there are CPUs."""

import os

import pytest

import ray


@ray.remote
def down(n):
    return 0 if n == 0 else 1 + ray.get(down.remote(n - 1))


@ray.remote
def sleeper(n, folder):
    """Like down, but each level also waits with ray.wait, and holds a value of its own in the store meanwhile."""
    if n == 0:
        return len(os.listdir(folder))
    open(os.path.join(folder, str(n)), "w").close()
    mine = ray.put(bytes(200_000))
    below = sleeper.remote(n - 1, folder)
    ray.wait([below])
    assert len(ray.get(mine)) == 200_000
    return ray.get(below)


@pytest.mark.slow
def test_200_deep(ray_2):
    assert ray.get(down.remote(200), timeout=90) == 200


@pytest.mark.slow
def test_50_deep_with_values_in_the_store(ray_2, tmp_path):
    folder = tmp_path / "levels"
    folder.mkdir()
    assert ray.get(sleeper.remote(50, str(folder)), timeout=90) == 50


@pytest.mark.soak
def test_1000_deep(ray_2):
    assert ray.get(down.remote(1000), timeout=600) == 1000
