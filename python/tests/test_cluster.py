"""Clusters of several daemons."""

import os
import pathlib
import time

import numpy as np
import pytest

import ray
from ray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
)


@ray.remote
def where():
    return ray.get_runtime_context().get_node_id()


def test_four_nodes(cluster):
    nodes = [cluster.add_node(num_cpus=1, resources={f"n{i}": 1}) for i in range(4)]
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    ids = {n.node_id for n in nodes}
    assert {n["NodeID"] for n in ray.nodes() if n["Alive"]} == ids
    assert ray.cluster_resources()["CPU"] == 4
    for i, node in enumerate(nodes):
        assert ray.get(where.options(resources={f"n{i}": 1}).remote()) == node.node_id
        strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        assert ray.get(where.options(scheduling_strategy=strategy).remote()) == node.node_id
    spread = where.options(scheduling_strategy="SPREAD")
    assert set(ray.get([spread.remote() for _ in range(20)])) <= ids


def test_values_travel(cluster):
    for i in range(3):
        cluster.add_node(num_cpus=1, resources={f"n{i}": 1})
    ray.init(cluster.address)
    cluster.wait_for_nodes()

    @ray.remote
    def make(n):
        return bytes(n)

    @ray.remote
    def size(value):
        return len(value)

    @ray.remote
    def open_box(box):
        return len(ray.get(box[0]))

    for n in (10, 1_000_000):
        big = make.options(resources={"n1": 1}).remote(n)
        assert ray.get(size.options(resources={"n2": 1}).remote(big)) == n
        assert ray.get(open_box.options(resources={"n2": 1}).remote([big])) == n
        assert len(ray.get(big)) == n
        mine = ray.put(bytes(n))
        assert ray.get(size.options(resources={"n1": 1}).remote(mine)) == n


def test_errors_travel(cluster):
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, resources={"far": 1})
    ray.init(cluster.address)
    cluster.wait_for_nodes()

    @ray.remote(resources={"far": 1})
    def fail():
        raise KeyError("k")

    with pytest.raises(KeyError) as e:
        ray.get(fail.remote())
    assert e.value.cause.args == ("k",)


def test_a_node_that_joins_later_gets_work(cluster):
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address)
    ref = where.options(resources={"later": 1}).remote()
    assert ray.wait([ref], timeout=0.05) == ([], [ref])
    node = cluster.add_node(num_cpus=1, resources={"later": 1})
    assert ray.get(ref, timeout=60) == node.node_id


def test_labels(cluster):
    cluster.add_node(num_cpus=1, labels={"zone": "a"})
    node = cluster.add_node(num_cpus=1, labels={"zone": "b"})
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    for selector in ({"zone": "b"}, {"zone": "!a"}, {"zone": "in(b,c)"}):
        assert ray.get(where.options(label_selector=selector).remote()) == node.node_id
    assert {n["Labels"].get("zone") for n in ray.nodes()} == {"a", "b"}


def test_remove_node(cluster):
    cluster.add_node(num_cpus=1)
    node = cluster.add_node(num_cpus=2)
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    cluster.remove_node(node)
    cluster.wait_for_nodes()
    assert ray.cluster_resources()["CPU"] == 1
    (dead,) = [n for n in ray.nodes() if n["NodeID"] == node.node_id]
    assert not dead["Alive"] and dead["Resources"] == {}
    strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    with pytest.raises(ray.exceptions.TaskUnschedulableError, match="The task is not schedulable"):
        ray.get(where.options(scheduling_strategy=strategy).remote())
    soft = NodeAffinitySchedulingStrategy(node.node_id, soft=True)
    assert ray.get(where.options(scheduling_strategy=soft).remote()) == cluster.head_node.node_id


def test_a_task_is_retried_when_its_node_is_killed(cluster, tmp_path):
    cluster.add_node(num_cpus=0)
    first = cluster.add_node(num_cpus=1)
    ray.init(cluster.address)
    cluster.wait_for_nodes()

    @ray.remote(max_retries=3)
    def once(folder):
        node = ray.get_runtime_context().get_node_id()
        open(os.path.join(folder, node), "w").close()
        while len(os.listdir(folder)) < 2:
            time.sleep(0.005)
        return node

    (tmp_path / "runs").mkdir()
    ref = once.remote(str(tmp_path / "runs"))
    while not os.listdir(tmp_path / "runs"):
        time.sleep(0.005)
    second = cluster.add_node(num_cpus=1)
    cluster.remove_node(first, allow_graceful=False)
    assert ray.get(ref, timeout=60) == second.node_id


def test_nodes_as_objects(cluster):
    head = cluster.add_node(num_cpus=1)
    other = cluster.add_node()
    assert cluster.head_node is head and cluster.worker_nodes == {other.node_id: other}
    assert cluster.list_all_nodes() == [head, other] and head.is_head() and not other.is_head()
    assert head.gcs_address == other.gcs_address == cluster.address == cluster.gcs_address
    assert head.get_session_dir_path() == other.get_session_dir_path() and head.node_ip_address == "127.0.0.1"
    assert len(head.all_processes["raylet"]) == 1 and cluster.remaining_processes_alive()
    other.kill_raylet()
    assert not other.remaining_processes_alive() and other.all_processes == {}


def test_connect(cluster):
    with pytest.raises(RuntimeError, match="Cannot connect to uninitialized cluster"):
        ray.cluster_utils.Cluster(connect=True, shutdown_at_exit=False)
    cluster.add_node(num_cpus=1)
    cluster.connect(namespace="n")
    assert ray.get_runtime_context().namespace == "n"
    cluster.add_node()
    assert len([n for n in ray.nodes() if n["Alive"]]) == 2


def test_two_clusters_side_by_side(cluster):
    cluster.add_node(num_cpus=1)
    other = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    try:
        assert other.address != cluster.address
        ray.init(other.address)
        assert ray.cluster_resources()["CPU"] == 3
        ray.shutdown()
        ray.init(cluster.address)
        assert ray.cluster_resources()["CPU"] == 1
    finally:
        ray.shutdown()
        other.shutdown()


def test_values_here_and_elsewhere(cluster):
    cluster.add_node(num_cpus=1, resources={"here": 1})
    ray.init(address=cluster.address)
    cluster.add_node(num_cpus=1, resources={"there": 1})
    cluster.wait_for_nodes()

    @ray.remote
    def fail():
        raise ValueError("no")

    @ray.remote
    def make(n):
        return np.full(n, 7)

    sizes = (1, 200_000) * 2
    refs = [make.options(resources={where: 0.1}).remote(n) for n in sizes for where in ("here", "there")]
    refs += [ray.put(1), fail.options(resources={"there": 0.1}).remote()]
    assert ray.wait(refs, num_returns=len(refs), fetch_local=False, timeout=60) == (refs, [])
    assert ray.wait(refs, num_returns=len(refs), timeout=60) == (refs, [])
    assert [len(a) for a in ray.get(refs[:8])] == [n for n in sizes for _ in range(2)]
    with pytest.raises(ValueError, match="no"):
        ray.get(refs)


@ray.remote(num_cpus=0, max_restarts=-1)
class Only:
    """Notes in a file where its process is, and whether the one before it was still there when it began."""

    def __init__(self, path):
        before = path.read_text().split() if path.exists() else []
        alive = [pid for pid in before if pid.isdigit() and _runs(pid)]
        path.write_text(" ".join([*before, *(["twice"] if alive else []), str(os.getpid())]))

    def node(self):
        return ray.get_runtime_context().get_node_id()


def _runs(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_actor_never_runs_twice_when_its_node_leaves(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    leaving = cluster.add_node(num_cpus=1, resources={"leaving": 1})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)
    path = tmp_path / "pids"
    known = NodeAffinitySchedulingStrategy(leaving.node_id, soft=False)
    assert ray.get(where.options(scheduling_strategy=known).remote(), timeout=60) == leaving.node_id
    there = NodeAffinitySchedulingStrategy(leaving.node_id, soft=True)
    only = Only.options(lifetime="detached", name="only", scheduling_strategy=there).remote(path)
    assert ray.get(only.node.remote()) == leaving.node_id
    cluster.remove_node(leaving)
    for _ in range(600):
        try:
            assert ray.get(only.node.remote(), timeout=60) != leaving.node_id
            break
        except ray.exceptions.ActorUnavailableError:  # it is on its way
            time.sleep(0.1)
    assert len(path.read_text().split()) == 2, path.read_text()


def test_labels_and_alternatives(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    nodes = {x: cluster.add_node(num_cpus=1, labels={"x": x, f"only{x}": "y"}).node_id for x in "12"}
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)

    @ray.remote
    def until(path):
        while not os.path.exists(path):
            time.sleep(0.01)
        return ray.get_runtime_context().get_node_id()

    def at(**options):
        return ray.get(where.options(**options).remote(), timeout=60)

    def by(hard, soft=None):
        return at(scheduling_strategy=NodeLabelSchedulingStrategy(hard, soft=soft))

    def mostly(wanted, *rules):
        """A rule that only should hold gives way while the nodes where it does seem busy, as after the task before."""
        found = 0
        for _ in range(10):
            while ray.available_resources().get("CPU") != 3:
                time.sleep(0.02)
            found += by(*rules) == wanted
        return found >= 6

    assert at(label_selector={"x": "in(2,3)"}) == at(label_selector={"x": "!1", "only2": "y"}) == nodes["2"]
    assert at(label_selector={"x": "9"}, fallback_strategy=[{"label_selector": {"x": x}} for x in "82"]) == nodes["2"]
    assert by({"x": Exists(), "only1": DoesNotExist()}) == nodes["2"]
    assert by({"x": DoesNotExist()}) not in nodes.values()
    assert mostly(nodes["2"], {"x": Exists()}, {"x": In("2")}) and mostly(nodes["2"], {}, {"x": In("2")})
    assert by({"x": In("1")}, {"x": In("9")}) == nodes["1"]
    busy = until.options(label_selector={"x": "1"}).remote(str(tmp_path / "go"))
    actor = Only.options(label_selector={"x": "1"}, num_cpus=1, fallback_strategy=[{"label_selector": {"x": "2"}}])
    while ray.available_resources().get("CPU") != 2:
        time.sleep(0.02)
    assert ray.get(actor.remote(tmp_path / "pids").node.remote()) == nodes["2"]  # it does not wait for the first
    (tmp_path / "go").touch()
    assert ray.get(busy) == nodes["1"]
