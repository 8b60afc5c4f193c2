"""Actors in the state API, over rows as the daemon gives them."""

import pytest

from ray.exceptions import RaySystemError
from ray.util.state import get_actor, list_actors, summarize_actors
from ray.util.state.common import ActorState
from ray.util.state.exception import RayStateApiException


def _row(n, **more):
    row = {
        "actor_id": f"{n:032x}",
        "class_name": "A",
        "state": "ALIVE",
        "job_id": "01000000",
        "name": "",
        "node_id": "ab" * 28,
        "pid": 100 + n,
        "ray_namespace": "ns",
        "serialized_runtime_env": None,
        "required_resources": {"CPU": 0.5},
        "death_cause": None,
        "is_detached": False,
        "placement_group_id": None,
        "repr_name": "",
        "num_restarts": 0,
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": 0,
        "call_site": None,
        "label_selector": {},
        "fallback_strategy": None,
        "start_ms": 5,
        "end_ms": 0,
        "ip": "127.0.0.1",
    }
    row.update(more)
    return row


@pytest.fixture
def rows(monkeypatch):
    rows = [
        _row(1, name="one", is_detached=True),
        _row(2, state="DEAD", death_cause={"actor_died_error_context": {"error_message": "why"}}),
        _row(3, state="PENDING_CREATION", class_name="B", node_id=None, pid=0),
    ]
    monkeypatch.setattr("ray._api._call_state", lambda method: {method: rows})
    return rows


def _pids(**kwargs):
    return [a.pid for a in list_actors(**kwargs)]


def test_list(rows):
    first = list_actors()[0]
    assert isinstance(first, ActorState) and first["state"] == first.state == "ALIVE" and first.name == "one"
    assert first.required_resources is None and first.is_detached is None and first.get("colour", 5) == 5
    with pytest.raises(KeyError):
        first["colour"]
    first = list_actors(detail=True)[0]
    assert first.required_resources == {"CPU": 0.5} and first.is_detached is True and first.num_restarts == 0


def test_filters(rows):
    assert _pids(filters=[("state", "=", "dead")]) == [102]
    assert _pids(filters=[("state", "!=", "DEAD")]) == [101, 0]
    assert _pids(filters=[("class_name", "=", "a"), ("pid", "=", 101)]) == [101]
    assert _pids(filters=[("pid", "!=", "101")]) == [102, 0]
    assert _pids(filters=[("node_id", "=", "AB" * 28)]) == [101, 102]
    for wrong, text in (
        (("colour", "=", 1), "filter column colour is not supported"),
        (("is_detached", "=", True), "is not supported"),
        (("state", ">", "DEAD"), "Unsupported filter predicate >"),
        (("state", "=", "x"), "Invalid actor state for filtering: X"),
        (("pid", "=", "abc"), "Failed to convert a value abc of type <class 'str'> to <class 'int'>"),
        ("state=DEAD", "is not"),
    ):
        with pytest.raises(RayStateApiException, match=text) as caught:
            list_actors(filters=[wrong])
        assert isinstance(caught.value, ValueError)


def test_limit(rows):
    with pytest.warns(UserWarning, match=r"Limit last 1 entries \(Total 3\)"):
        assert _pids(limit=1) == [101]
    with pytest.raises(RayStateApiException, match="limit 10000"):
        list_actors(limit=10_001)
    with pytest.raises(NotImplementedError):
        list_actors(address="127.0.0.1:1")


def test_get(rows):
    assert get_actor(f"{2:032x}").death_cause == {"actor_died_error_context": {"error_message": "why"}}
    assert get_actor(f"{9:032x}") is None
    with pytest.raises(RayStateApiException, match="needs to have length 16, got 1"):
        get_actor("00")
    with pytest.raises(RayStateApiException, match="hexadecimal"):
        get_actor("x")


def test_summary(rows):
    assert summarize_actors() == {
        "cluster": {
            "summary": {
                "A": {"class_name": "A", "state_counts": {"ALIVE": 1, "DEAD": 1}},
                "B": {"class_name": "B", "state_counts": {"PENDING_CREATION": 1}},
            },
            "total_actors": 3,
            "summary_by": "class",
        }
    }


def test_a_cluster_without_actors(cluster):
    import ray

    with pytest.raises(RaySystemError):
        list_actors()
    cluster.add_node(num_cpus=1)
    ray.init(cluster.address)
    assert list_actors() == [] and get_actor("0" * 32) is None
    assert summarize_actors()["cluster"] == {"summary": {}, "total_actors": 0, "summary_by": "class"}
