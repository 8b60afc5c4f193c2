"""What ``import ray`` loads, and which names it offers."""

import subprocess
import sys

import pytest

import ray


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_import_loads_nothing_heavy():
    heavy = "numpy asyncio inspect logging cloudpickle msgpack subprocess json socket typing multiprocessing".split()
    code = (
        f"import sys; before = set(sys.modules); import ray; print(sorted((set(sys.modules) - before) & set({heavy!r})));"
        "print(len([m for m in sys.modules if m.startswith('ray')]))"
    )
    loaded, count = run(code).splitlines()
    assert loaded == "[]"
    assert int(count) <= 2


def test_remote_function_is_made_without_heavy_modules():
    heavy = "numpy asyncio inspect logging cloudpickle multiprocessing subprocess".split()
    code = f"import sys, ray\n@ray.remote\ndef f(a, b=1): return a\nprint(sorted(set(sys.modules) & set({heavy!r})))"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("name", [n for n in dir(ray) if not n.startswith("_")])
def test_every_listed_name_is_there(name):
    getattr(ray, name)


def test_all_is_listed_and_there():
    assert set(ray.__all__) <= set(dir(ray))
    for name in ray.__all__:
        getattr(ray, name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'ray' has no attribute 'nothing'"):
        ray.nothing  # noqa: B018


def test_version():
    assert ray.__version__ == "2.60.0+gray0.1.0"
    assert isinstance(ray.__commit__, str)


def test_placement_group_is_a_function_and_a_module():
    code = (
        "import ray.util\n"
        "from ray.util.placement_group import PlacementGroup, placement_group as a\n"
        "from ray.util import placement_group as b\n"
        "assert a is b is ray.util.placement_group, (a, b)\n"
        "print(callable(a))"
    )
    assert run(code).strip() == "True"


@pytest.mark.parametrize(
    "use",
    [
        lambda: ray.java_function("a", "b"),
        lambda: ray.cpp_function("a"),
        lambda: ray.util.placement_group([{"CPU": 1}]),
        lambda: ray.internal.free([]),
        lambda: ray.dag.InputNode(),
        lambda: ray.job_submission.JobSubmissionClient(),
        lambda: ray.cluster_utils.AutoscalingCluster({}, {}),
        lambda: ray.remote(type("A", (), {})).bind(),
        lambda: ray.remote(lambda: 1).bind(),
    ],
)
def test_what_is_not_there_says_so(use, monkeypatch):
    # those that look at the connection first must not start a cluster here
    monkeypatch.setattr("ray._api.ensure_initialized", lambda: None)
    with pytest.raises(NotImplementedError, match="Gray does not have this yet"):
        use()


def test_workflow_was_removed():
    with pytest.raises(RuntimeError, match="removed"):
        ray.workflow.run()


@pytest.mark.parametrize("call", [ray.nodes, ray.cluster_resources, ray.available_resources])
def test_state_calls_need_a_connection(call):
    with pytest.raises(ray.exceptions.RaySystemError, match=r"Ray has not been started yet\. Trying to use state API"):
        call()


def test_timeline_needs_a_connection():
    with pytest.raises(RuntimeError, match="Timeline requires Ray"):
        ray.timeline()


@pytest.mark.parametrize("call", [lambda: ray.get([]), lambda: ray.put(1), lambda: ray.wait([]), ray.get_gpu_ids])
def test_no_auto_init_where_it_is_off(call, monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(ray.exceptions.RaySystemError, match=r"started yet\. You can start Ray with 'ray.init\(\)'"):
        call()


def test_shutdown_without_a_connection():
    ray.shutdown()
    ray.shutdown()
    assert not ray.is_initialized()
