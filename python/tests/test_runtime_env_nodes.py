"""Runtime environments on clusters of several nodes: packages are sent once, fetched once a node, and go again."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import ray
from ray._common.test_utils import wait_for_condition
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@pytest.fixture
def program(tmp_path):
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "nodes_helper.py").write_text("VALUE = 42")
    return folder


@ray.remote
def where():
    import nodes_helper

    return nodes_helper.VALUE, os.getcwd(), os.stat(nodes_helper.__file__).st_ino


def on(node):
    return where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False))


def unpacked(cluster):
    """The folders of packages that nodes have, by the node's own folder."""
    resources = pathlib.Path(cluster.head_node.get_session_dir_path()) / "runtime_resources"
    return {
        p.name: sorted(x.name for x in p.iterdir()) for p in resources.iterdir() if p.is_dir() and p.name != "packages"
    }


def stored(cluster):
    folder = pathlib.Path(cluster.head_node.get_session_dir_path()) / "runtime_resources" / "packages"
    return {p.name: p.stat().st_ino for p in folder.iterdir()}


def test_every_node_has_it_once(cluster, program):
    nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
    nodes.append(cluster.add_node(num_cpus=2, node_ip_address="127.0.0.3"))
    cluster.wait_for_nodes()
    for turn in range(2):
        ray.init(cluster.address, runtime_env={"working_dir": str(program)})
        seen = [ray.get([on(node).remote() for _ in range(4)]) for node in nodes]
        assert {value for told in seen for value, _, _ in told} == {42}
        assert [len({path for _, path, _ in told}) for told in seen] == [1, 1, 1]
        assert len({path for told in seen for _, path, _ in told}) == 3
        name = ray.get_runtime_context().runtime_env["working_dir"][len("gcs://") :]
        assert list(unpacked(cluster).values()) == [[name[: -len(".zip")]]] * 3
        if turn == 0:
            first, sent = seen, stored(cluster)
            assert list(sent) == [name]
        else:  # another job with the same folder: neither sent nor unpacked again
            assert [told[0] for told in seen] == [told[0] for told in first] and stored(cluster) == sent
        ray.shutdown()
    # A driver on another node than the head's sends it through its own daemon.
    (program / "nodes_helper.py").write_text("VALUE = 43")
    ray.init(cluster.address, _node_ip_address="127.0.0.3", runtime_env={"working_dir": str(program)})
    assert ray.get_runtime_context().get_node_id() == nodes[2].node_id
    assert {ray.get(on(node).remote())[0] for node in nodes} == {43}
    assert len(stored(cluster)) == 2
    gone = nodes[1].node_id[:16]
    assert gone in unpacked(cluster)
    cluster.remove_node(nodes[1])
    assert gone not in unpacked(cluster)


def test_unused_packages_go(cluster, program, monkeypatch):
    monkeypatch.setenv("RAY_RUNTIME_ENV_WORKING_DIR_CACHE_SIZE_GB", "0")
    node = cluster.add_node(num_cpus=1)
    ray.init(cluster.address, runtime_env={"working_dir": str(program)})

    @ray.remote
    class A:
        def f(self):
            import nodes_helper

            return nodes_helper.VALUE

    a = A.remote()
    assert ray.get(a.f.remote()) == 42
    assert ray.get(on(node).remote())[0] == 42  # in use, so it stays whatever the limit
    assert len(unpacked(cluster)[node.node_id[:16]]) == 1
    ray.shutdown()
    wait_for_condition(lambda: unpacked(cluster)[node.node_id[:16]] == [], timeout=30)
    ray.init(cluster.address, runtime_env={"working_dir": str(program)})
    assert ray.get(on(node).remote())[0] == 42


def test_a_detached_actor_keeps_its_package(cluster, program):
    """Its driver has ended, and its next node has never seen the package."""
    cluster.add_node(num_cpus=0)
    first = cluster.add_node(num_cpus=1)
    script = textwrap.dedent(f"""
        import ray
        ray.init({cluster.address!r}, namespace="n", runtime_env={{"working_dir": {str(program)!r}}})

        @ray.remote(max_restarts=-1, num_cpus=1)
        class A:
            def f(self):
                import nodes_helper
                return nodes_helper.VALUE, ray.get_runtime_context().get_node_id()

        a = A.options(name="a", lifetime="detached").remote()
        print(ray.get(a.f.remote()))
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.stdout == f"(42, {first.node_id!r})\n", run.stderr
    ray.init(cluster.address, namespace="n")
    second = cluster.add_node(num_cpus=1)
    cluster.remove_node(first, allow_graceful=False)
    a = ray.get_actor("a")

    def answers():
        try:
            return ray.get(a.f.remote()) == (42, second.node_id)
        except ray.exceptions.RayActorError:
            return False

    wait_for_condition(answers, timeout=60)


def test_tasks_with_uris_inherit(cluster, program):
    nodes = [cluster.add_node(num_cpus=1, resources={f"n{i}": 1}) for i in range(2)]
    ray.init(cluster.address, runtime_env={"working_dir": str(program), "env_vars": {"A": "1", "B": "1"}})
    cluster.wait_for_nodes()

    @ray.remote
    def inner():
        import nodes_helper

        context = ray.get_runtime_context()
        return nodes_helper.VALUE, os.environ["A"], os.environ["B"], os.environ["C"], context.get_node_id()

    @ray.remote(resources={"n0": 1}, runtime_env={"env_vars": {"B": "2", "C": "2"}})
    def outer():
        return ray.get(inner.options(resources={"n1": 1}, runtime_env={"env_vars": {"C": "3"}}).remote())

    assert ray.get(outer.remote()) == (42, "1", "2", "3", nodes[1].node_id)
