"""ray.cancel across machines."""

import os
import time

import pytest
from test_cancel import busy, mark, until

import ray
from ray.exceptions import TaskCancelledError


@pytest.fixture
def two(cluster):
    """A node of the driver without room, and one on which everything runs."""
    cluster.add_node(num_cpus=0)
    cluster.add_node(num_cpus=3, resources={"far": 3})
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    return cluster


def free():
    until(lambda: ray.available_resources().get("CPU") == 3)


@pytest.mark.parametrize("force", [False, True])
def test_a_task_on_another_node(two, tmp_path, force):
    runs, waits = busy.remote(str(tmp_path / "runs")), [busy.remote(str(tmp_path / f"w{i}")) for i in range(6)]
    until(lambda: (tmp_path / "runs").exists())
    for ref in (*reversed(waits), runs):
        ray.cancel(ref, force=force)
    for ref in (runs, *waits):
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=60)
    free()


def test_children_on_another_node(two, tmp_path):
    @ray.remote(resources={"far": 1}, num_cpus=0)
    def near(path):
        ray.get(middle.remote(path))

    @ray.remote
    def middle(path):
        ray.get(leaf.remote(path))

    @ray.remote
    def leaf(path):
        try:
            mark(path)
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            mark(path + ".interrupted")
            raise

    path = str(tmp_path / "leaf")
    top = near.remote(path)
    until(lambda: os.path.exists(path))
    ray.cancel(top)
    with pytest.raises(TaskCancelledError):
        ray.get(top, timeout=60)
    until(lambda: os.path.exists(path + ".interrupted"))
    free()


def test_by_a_worker_on_another_node(two, tmp_path):
    @ray.remote
    def cancels(refs):
        ray.cancel(refs[0])

    path = tmp_path / "runs"
    ref = busy.remote(str(path))
    until(path.exists)
    ray.get(cancels.remote([ref]))
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=60)
    free()
