"""What programs written for Ray expect beside the main path: waits that end in time, views, names, addresses."""

import asyncio
import os
import socket
import time

import pytest

import ray


@ray.remote
def until(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return path


@pytest.mark.parametrize("timeout", [0, 0.05])
@pytest.mark.parametrize("fetch_local", [True, False])
def test_wait_ends_while_the_task_runs(ray_2, tmp_path, timeout, fetch_local):
    path = str(tmp_path / "go")
    done = ray.put(1)
    ref = until.remote(path)
    assert ray.wait([ref], timeout=timeout, fetch_local=fetch_local) == ([], [ref])
    assert ray.wait([ref, done], num_returns=2, timeout=timeout, fetch_local=fetch_local) == ([done], [ref])
    open(path, "w").close()  # only now: a wait that waited for the task would never have come back
    assert ray.wait([ref, done], num_returns=2, timeout=30) == ([ref, done], [])


def test_wait_in_a_task_ends_in_time(ray_2, tmp_path):
    @ray.remote
    def look(box):
        return len(ray.wait(box, timeout=0.05)[0])

    path = str(tmp_path / "go")
    ref = until.remote(path)
    assert ray.get(look.remote([ref]), timeout=30) == 0
    open(path, "w").close()


def test_as_future_outside_a_running_loop(ray_2):
    @ray.remote
    def square(x):
        return x * x

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        futures = [square.remote(i).as_future() for i in range(3)]
        assert loop.run_until_complete(asyncio.gather(*futures)) == [0, 1, 4]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_small_arrays_are_aligned_and_read_only(ray_2):
    numpy = pytest.importorskip("numpy")

    @ray.remote
    def address(x):
        return x.ctypes.data % 64, x.flags.writeable

    for size in (10, 1000, 6000, 200_000):
        array = numpy.random.rand(size)
        got = ray.get(ray.put(array))
        assert got.ctypes.data % 64 == 0 and not got.flags.writeable and (got == array).all()
        assert ray.get(address.remote(ray.put(array))) == (0, False)


def test_a_task_runs_on_a_node_that_joins_after_it_was_submitted(cluster):
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address)
    for i in range(4):  # which of two daemons calls the other depends on their ids, which are random
        name = f"late{i}"

        @ray.remote(resources={name: 1})
        def where():
            return ray.get_runtime_context().get_node_id()

        ref = where.remote()
        node = cluster.add_node(num_cpus=1, resources={name: 1})
        assert ray.get(ref, timeout=30) == node.node_id


def test_resources_and_labels_of_the_environment(own_env, monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"a": 1, "b": 2, "CPU": 3}')
    monkeypatch.setenv("RAY_OVERRIDE_LABELS", '{"k": "over"}')
    monkeypatch.setenv("RAY_NODE_ZONE", "z-1")
    ray.init(num_cpus=1, resources={"a": 3, "c": 3}, labels={"k": "mine"}, object_store_memory=100 << 20)
    resources = ray.cluster_resources()
    assert [resources[name] for name in ("a", "b", "c", "CPU")] == [1, 2, 3, 3]
    labels = ray.nodes()[0]["Labels"]
    assert labels["k"] == "over" and labels["ray.io/availability-zone"] == "z-1"


def test_a_bad_override_is_told(own_env, monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", "CPU=3")
    with pytest.raises(RuntimeError, match="RAY_OVERRIDE_RESOURCES=CPU=3: want a JSON object"):
        ray.init()


def test_dashboard_url_of_the_environment(own_env, monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_DASHBOARD_URL", "https://ray.example/proxy")
    assert ray.init(num_cpus=1, object_store_memory=100 << 20).dashboard_url == "ray.example/proxy"


def test_nodes_by_host_name(cluster):
    cluster.add_node(num_cpus=1, node_ip_address="localhost")
    ray.init(cluster.address, _node_ip_address="localhost")
    (node,) = cluster.global_state.node_table()
    assert node["NodeManagerAddress"] == "127.0.0.1" and node["NodeManagerHostname"] == socket.gethostname()
    with pytest.raises(ValueError, match="no host of that name is known"):
        cluster.add_node(num_cpus=1, node_ip_address="no-such-host.invalid")


def test_list_nodes(cluster):
    from ray.util.state import get_node, list_nodes
    from ray.util.state.exception import RayStateApiException

    head = cluster.add_node(num_cpus=1, node_name="one")
    other = cluster.add_node(num_cpus=2)
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    assert {n.node_id for n in list_nodes()} == {head.node_id, other.node_id}
    (found,) = list_nodes(filters=[("is_head_node", "=", True), ("state", "=", "alive")])
    assert found["node_id"] == head.node_id and found.node_name == "one" and found.resources_total["CPU"] == 1
    assert [n.node_id for n in list_nodes(filters=[("node_id", "!=", head.node_id)])] == [other.node_id]
    assert len(list_nodes(limit=1)) == 1
    assert get_node(other.node_id).resources_total["CPU"] == 2 and get_node("0" * 56) is None
    for wrong in ([("colour", "=", 1)], [("state", "~", 1)], ["state=ALIVE"]):
        with pytest.raises(RayStateApiException):
            list_nodes(filters=wrong)
    with pytest.raises(RayStateApiException, match="10000"):
        list_nodes(limit=10_001)


def test_metrics_are_not_there_yet():
    from ray.util import metrics, queue

    for call in (metrics.Counter, metrics.Gauge, metrics.Histogram):
        with pytest.raises(NotImplementedError, match="metrics"):
            call("name")
    with pytest.raises(queue.Empty):
        raise queue.Empty  # as in Ray, it is the standard library's, too


def test_names_that_other_packages_import():
    import ray._private

    assert ray._private.state.nodes is ray.nodes and ray._private.worker.global_worker is not None
    assert ray._private.ray_constants.DEFAULT_PORT == 6379
    assert ray._private.worker.global_worker.current_job_id.is_nil()
    with pytest.raises(AttributeError, match="no attribute 'no_such_module'"):
        ray._private.no_such_module  # noqa: B018
    from ray.cluster_utils import cluster_not_supported
    from ray.runtime_env.runtime_env import RuntimeEnv

    assert cluster_not_supported is False and RuntimeEnv is ray.runtime_env.RuntimeEnv
