"""The state API on a real cluster: tasks, actors, objects, workers, jobs, nodes; summaries; the timeline."""

import json
import os
import subprocess
import sys
import time
import warnings

import pytest

import ray
import ray._private.state as private_state
from ray.util import state
from ray.util.state import (
    StateApiClient,
    get_actor,
    get_job,
    get_objects,
    get_task,
    get_worker,
    list_actors,
    list_cluster_events,
    list_jobs,
    list_nodes,
    list_objects,
    list_placement_groups,
    list_runtime_envs,
    list_tasks,
    list_workers,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
)
from ray.util.state.common import ListApiOptions, StateResource, SummaryApiOptions, SummaryResource, TaskState
from ray.util.state.exception import RayStateApiException


def eventually(check, seconds=20):
    """What ``check`` returns, once it raises no more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, ValueError, IndexError, KeyError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@ray.remote
def plain(x=None):
    return x


@ray.remote(max_retries=0)
def failing():
    raise ValueError("no luck")


@ray.remote(max_retries=0)
def dying():
    os._exit(3)


@ray.remote
def gate(path):
    while not os.path.exists(path):
        time.sleep(0.01)


@ray.remote
class Counter:
    def up(self, path=None):
        return os.getpid() if path is None else gate._function(path)


def one(name, **more):
    (row,) = list_tasks(filters=[("name", "=", name)], detail=True, **more)
    return row


def test_a_task_from_its_call_to_its_end(ray_2, tmp_path):
    go = str(tmp_path / "go")
    running = gate.options(name="running").remote(go)
    waiting = plain.options(name="waiting").remote(running)
    row = eventually(lambda: _in(one("running"), "RUNNING"))
    placed = plain.options(name="placed", num_cpus=2).remote()
    eventually(lambda: _in(one("placed"), "PENDING_NODE_ASSIGNMENT"))
    assert row["worker_pid"] and row.node_id == ray.get_runtime_context().get_node_id() and row.end_time_ms is None
    assert row.func_or_class_name == "gate" and row.type == "NORMAL_TASK" and row.attempt_number == 0
    assert row.parent_task_id == "f" * 40 + "01000000" and row.job_id == "01000000" and row.actor_id is None
    assert one("waiting").state == "PENDING_ARGS_AVAIL"
    assert one("placed").node_id is None and one("placed").required_resources == {"CPU": 2.0}
    assert get_task(running) == get_task(running.task_id().hex()) == row
    open(go, "w").close()
    ray.get([waiting, placed])
    done = eventually(lambda: _in(one("running"), "FINISHED"))
    assert done.worker_id == row.worker_id and done.creation_time_ms <= done.start_time_ms <= done.end_time_ms
    assert [e["state"] for e in done.events][-2:] == ["RUNNING", "FINISHED"]
    assert isinstance(done, TaskState) and done.get("colour", 5) == 5 and one("running", limit=1) == done


def _in(row, wanted):
    assert row.state == wanted, row
    return row


def test_errors_of_tasks(ray_2):
    for f in (failing, dying):
        with pytest.raises(ray.exceptions.RayError):
            ray.get(f.remote())
    row = eventually(lambda: _in(one("failing"), "FAILED"))
    assert row.error_type == "TASK_EXECUTION_EXCEPTION"
    assert (
        row.error_message.startswith("User exception:\nray::failing()") and "ValueError: no luck" in row.error_message
    )
    row = eventually(lambda: _in(one("dying"), "FAILED"))
    assert row.error_type == "WORKER_DIED" and "exit code 3" in row.error_message and row.worker_pid
    (dead,) = list_workers(filters=[("is_alive", "=", False)], detail=True)
    assert (
        dead.pid == row.worker_pid and dead.exit_type == "SYSTEM_ERROR" and dead.end_time_ms >= dead.start_time_ms > 0
    )


def test_every_attempt_is_a_row(ray_2, tmp_path):
    @ray.remote(max_retries=2, retry_exceptions=True)
    def third(folder):
        with open(os.path.join(folder, "n"), "a+") as f:
            f.write("x")
            f.seek(0)
            if len(f.read()) < 3:
                raise ValueError("again")

    ray.get(third.remote(str(tmp_path)))
    rows = eventually(lambda: _three(list_tasks(filters=[("name", "=", "third")])))
    assert [(r.attempt_number, r.state) for r in rows] == [(2, "FINISHED"), (1, "FAILED"), (0, "FAILED")]
    assert [r.attempt_number for r in get_task(rows[0].task_id)] == [2, 1, 0]


def _three(rows):
    assert len(rows) == 3
    return rows


def test_parents(ray_2):
    @ray.remote
    class Parent:
        def m(self):
            ray.get(plain.options(name="child of a method").remote())
            return ray.get_runtime_context().get_task_id()

    @ray.remote
    def parent():
        ray.get(plain.options(name="child").remote())
        return ray.get_runtime_context().get_task_id()

    a = Parent.remote()
    assert ray.get(parent.remote()) == one("child").parent_task_id
    assert ray.get(a.m.remote()) == one("child of a method").parent_task_id


def test_actors_and_their_calls(ray_2, tmp_path):
    go = str(tmp_path / "go")
    a = Counter.options(name="one").remote()
    pid = ray.get(a.up.remote())
    calls = [a.up.options(name=f"call {i}").remote(go) for i in range(3)]
    actor = get_actor(a._actor_id.hex())
    assert (actor.state, actor.pid, actor.name, actor.class_name) == ("ALIVE", pid, "one", "Counter")
    assert list_actors(filters=[("pid", "=", pid)])[0].actor_id == actor.actor_id
    eventually(lambda: _in(one("call 0"), "RUNNING"))
    assert one("call 1").state == one("call 2").state == "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
    rows = list_tasks(filters=[("actor_id", "=", actor.actor_id)])
    assert sorted(r.type for r in rows) == ["ACTOR_CREATION_TASK"] + ["ACTOR_TASK"] * 4
    assert {r.func_or_class_name for r in rows} == {"Counter.__init__", "Counter.up"}
    counts = summarize_tasks()["cluster"]
    assert counts["total_actor_tasks"] == 4 and counts["total_actor_scheduled"] == 1 and counts["total_tasks"] == 0
    assert summarize_actors()["cluster"] == {
        "summary": {"Counter": {"class_name": "Counter", "state_counts": {"ALIVE": 1}}},
        "total_actors": 1,
        "summary_by": "class",
    }
    ray.kill(a)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(calls)
    row = eventually(lambda: _in(one("call 0"), "FAILED"))
    assert row.error_type == "WORKER_DIED" and "killed by `ray.kill`" in row.error_message
    assert one("call 2").error_type in ("ACTOR_DIED", "WORKER_DIED")


def test_who_leaves_on_purpose_has_not_failed(ray_2):
    @ray.remote
    class A:
        def leave(self):
            ray.actor.exit_actor()

    a = A.remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(a.leave.remote())
    eventually(lambda: _in(one("A.leave"), "FINISHED"))


def test_calls_that_are_not_listed(ray_2):
    @ray.remote
    class A:
        def m(self):
            pass

        @ray.method(enable_task_events=True)
        def loud(self):
            pass

        @ray.method(enable_task_events=False)
        def quiet(self):
            pass

    @ray.remote(enable_task_events=False)
    def hidden():
        pass

    loud, quiet = A.remote(), A.options(enable_task_events=False).remote()
    for a in (loud, quiet):
        ray.get([a.m.remote(), a.loud.remote(), a.quiet.remote()])
    ray.get([hidden.remote(), hidden.options(enable_task_events=True, name="shown").remote()])
    loud, quiet = loud._actor_id.hex(), quiet._actor_id.hex()
    assert {(t.actor_id, t.name) for t in list_tasks()} == {
        (loud, "A.__init__"), (loud, "A.m"), (loud, "A.loud"), (quiet, "A.loud"), (None, "shown"),
    }  # fmt: skip


def test_objects(ray_2, tmp_path):
    np = pytest.importorskip("numpy")
    go = str(tmp_path / "go")
    big, small = ray.put(np.zeros(1 << 17)), ray.put(1)

    @ray.remote
    def reader(array, go):
        gate._function(go)

    out = reader.remote(big, go)
    eventually(lambda: _in(one("reader"), "RUNNING"))
    with pytest.warns(UserWarning, match="RAY_record_ref_creation_sites=1"):
        rows = {(r.object_id, r.reference_type): r for r in list_objects()}
    held = rows[big.hex(), "USED_BY_PENDING_TASK"]
    assert held.object_size > 1 << 20 and held.type == "DRIVER" and held.pid == os.getpid()
    assert rows[big.hex(), "PINNED_IN_MEMORY"].type == "WORKER"
    assert rows[small.hex(), "LOCAL_REFERENCE"].task_status == "FINISHED"
    made = rows[out.hex(), "LOCAL_REFERENCE"]
    assert made.object_size == -1 and made.task_status == "SUBMITTED_TO_WORKER" and made.call_site == "disabled"
    assert {r.reference_type for r in get_objects(big.hex())} >= {"USED_BY_PENDING_TASK", "PINNED_IN_MEMORY"}
    total = summarize_objects()["cluster"]
    assert total["total_objects"] >= 4 and total["total_size_mb"] > 2 and total["callsite_enabled"] is False
    open(go, "w").close()
    ray.get(out)
    del big
    eventually(lambda: _none(list_objects(filters=[("object_size", "!=", "-1"), ("object_id", "=", held.object_id)])))


def _none(rows):
    assert not rows, rows


def test_call_sites(own_env, monkeypatch):
    monkeypatch.setenv("RAY_record_ref_creation_sites", "1")
    ray.init(num_cpus=1)
    ref, out, a = ray.put(1), plain.remote(), Counter.remote()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sites = {r.object_id: r.call_site for r in list_objects()}
    for oid, kind in ((ref.hex(), "(put object) "), (out.hex(), "(task call) ")):
        assert sites[oid].startswith(kind + __file__ + ":test_call_sites:"), sites[oid]
    assert "test_call_sites" in get_actor(a._actor_id.hex()).call_site


def test_workers_and_jobs(ray_2):
    driver = get_worker(ray.get_runtime_context().get_worker_id())
    assert driver.worker_type == "DRIVER" and driver.pid == os.getpid() and driver.is_alive and driver.end_time_ms == 0
    assert eventually(lambda: _three(list_workers()))  # two were forked ahead
    job = get_job(ray.get_runtime_context().get_job_id())
    assert job.status == "RUNNING" and job.type == "DRIVER" and job.driver_info.pid == str(os.getpid())
    assert dict(job.driver_info)["pid"] == str(os.getpid())
    assert [j.job_id for j in list_jobs()] == [job.job_id]
    (old,) = private_state.jobs()
    assert (old["JobID"], old["DriverPid"], old["IsDead"]) == (job.job_id, os.getpid(), False)


def test_what_each_node_has_free(ray_2, tmp_path):
    node = ray.get_runtime_context().get_node_id()
    assert private_state.total_resources_per_node()[node]["CPU"] == 2
    go = str(tmp_path / "go")
    ref = gate.remote(go)
    eventually(lambda: _free(node, 1))
    open(go, "w").close()
    ray.get(ref)
    eventually(lambda: _free(node, 2))


def _free(node, cpus):
    assert private_state.available_resources_per_node()[node].get("CPU") == cpus


def test_what_there_is_none_of(ray_2):
    assert list_placement_groups() == list_runtime_envs() == list_cluster_events() == []
    ref = plain.options(num_gpus=1).remote()
    (event,) = eventually(lambda: _one(list_cluster_events()))
    assert "No available node types can fulfill resource request {'CPU': 1.0, 'GPU': 1.0}" in event["message"]
    del ref


def _one(rows):
    assert len(rows) == 1
    return rows


def test_filters_and_limits(ray_2):
    ray.get([plain.options(name=f"p{i}").remote() for i in range(5)])
    eventually(lambda: _none([t for t in list_tasks() if t.state != "FINISHED"]))
    assert list_tasks(filters=[("NAME", "=", "P3")]) == [one_brief("p3")]
    assert len(list_tasks(filters=[("name", "!=", "p3"), ("state", "=", "finished")])) == 4
    with pytest.warns(UserWarning, match=r"Limit last 2 entries \(Total 5\)"):
        assert len(list_tasks(limit=2)) == 2
    for wrong, text in (
        (("colour", "=", 1), "filter column colour is not supported"),
        (("error_message", "=", "x"), "is not supported"),
        (("state", ">", "DEAD"), "Unsupported filter predicate >"),
        (("state", "=", "x"), "Invalid task state for filtering: X"),
        (("worker_pid", "=", "abc"), "Failed to convert a value abc"),
        ("state=DEAD", "is not"),
    ):
        with pytest.raises(RayStateApiException, match=text) as caught:
            list_tasks(filters=[wrong])
        assert isinstance(caught.value, ValueError)
    with pytest.raises(RayStateApiException, match="limit 10000"):
        list_nodes(limit=10_001)
    with pytest.raises(RayStateApiException, match="needs to have length 16, got 1"):
        get_actor("00")
    with pytest.raises(RayStateApiException, match="hexadecimal"):
        get_actor("x")
    assert get_actor("0" * 32) is None and get_task("0" * 48) is None and get_objects("0" * 56) == []


def one_brief(name):
    (row,) = list_tasks(filters=[("name", "=", name)])
    assert row.language is None and row.events is None
    return row


def test_answers_larger_than_a_frame(ray_2):
    text = "x" * 200
    refs = [plain.options(name=f"{text}{i}").remote() for i in range(3000)]
    ray.get(refs)
    rows = eventually(lambda: _all(list_tasks(limit=10_000, detail=True), 3000))
    assert len({r.name for r in rows}) == 3000 and all(r.name.startswith(text) for r in rows)


def _all(rows, n):
    assert len([r for r in rows if r.state == "FINISHED"]) == n
    return rows


def test_client(ray_2):
    ray.get(plain.remote())
    client = StateApiClient()
    options = ListApiOptions(detail=True, filters=[("name", "=", "plain")])
    (row,) = eventually(lambda: _one(client.list(StateResource.TASKS, options, raise_on_missing_output=True)))
    assert client.get(StateResource.TASKS, row.task_id) == row
    tree = client.summary(SummaryResource.TASKS, options=SummaryApiOptions(summary_by="lineage"))["cluster"]
    assert tree["summary_by"] == "lineage" and [n["name"] for n in tree["summary"]] == ["plain"]


def test_tasks_on_several_nodes(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    other = cluster.add_node(num_cpus=1, resources={"there": 1})
    ray.init(cluster.address)
    cluster.wait_for_nodes()
    go = str(tmp_path / "go")
    ref = gate.options(resources={"there": 1}).remote(go)
    row = eventually(lambda: _in(one("gate"), "RUNNING"))
    assert row.node_id == other.node_id and row.worker_pid and row.start_time_ms
    assert list_tasks(filters=[("state", "=", "RUNNING"), ("node_id", "=", other.node_id)])[0].task_id == row.task_id
    assert list_tasks(filters=[("node_id", "!=", other.node_id)]) == []
    assert summarize_tasks()["cluster"]["summary"]["gate"]["state_counts"] == {"RUNNING": 1}
    open(go, "w").close()
    ray.get(ref)
    row = eventually(lambda: _in(one("gate"), "FINISHED"))
    assert row.node_id == other.node_id and row.worker_pid
    cluster.remove_node(other)
    dead = eventually(lambda: _one(list_nodes(filters=[("state", "=", "DEAD")], detail=True)))[0]
    assert dead.node_id == other.node_id and dead.state_message == "Expected termination: received SIGTERM"
    assert dead.end_time_ms >= dead.start_time_ms and dead.resources_total == {}


def test_timeline(ray_2, tmp_path):
    ray.get([plain.remote(), Counter.remote().up.remote()])
    events = eventually(lambda: _names(ray.timeline(), {"plain", "Counter.__init__", "Counter.up"}))
    file = str(tmp_path / "t.json")
    assert ray.timeline(file) is None
    with open(file) as f:
        assert len(json.load(f)) == len(events)
    for e in events:
        assert e["ph"] == "X" and e["dur"] >= 0 and e["tid"].startswith("worker:") and e["ts"] > 1e15
    ray.shutdown()
    with pytest.raises(RuntimeError):
        ray.timeline()


def _names(events, wanted):
    assert {e["name"] for e in events if e["cat"].startswith("task::")} == wanted
    return events


def test_from_outside(own_env, binary):
    """What is asked over HTTP is what a driver is told; without the token nothing is said."""
    started = subprocess.run(
        [binary, "start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--dashboard-port=0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, env=dict(os.environ, GRAY_PYTHON=sys.executable),
    )  # fmt: skip
    assert started.returncode == 0, started.stdout
    try:
        ray.init("auto")
        ray.get(plain.options(name="from inside").remote())
        inside = eventually(lambda: _in(one("from inside"), "FINISHED"))
        url = f"http://{ray._core.state.dashboard_url}"
        ray.shutdown()
        assert state.get_task(inside.task_id) == state.get_task(inside.task_id, address=url) == inside
        assert state.summarize_tasks()["cluster"]["summary"]["from inside"]["state_counts"] == {"FINISHED": 1}
        with pytest.raises(RayStateApiException, match="filter column colour"):
            state.list_tasks(filters=[("colour", "=", 1)])
        for where in ({"RAY_API_SERVER_ADDRESS": url}, {"RAY_ADDRESS": ""}):
            told = subprocess.run(
                [binary, "get", "tasks", inside.task_id],
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
                env={**os.environ, **where},
            )
            assert f"task_id: {inside.task_id}" in told.stdout and "name: from inside" in told.stdout, told
        os.rename(os.path.expanduser("~/.ray/auth_token"), os.path.expanduser("~/.ray/hidden"))
        os.environ["RAY_AUTH_TOKEN"] = "a" * 64
        with pytest.raises(RayStateApiException, match="40[13]"):
            state.list_tasks(address=url)
        del os.environ["RAY_AUTH_TOKEN"]
        os.rename(os.path.expanduser("~/.ray/hidden"), os.path.expanduser("~/.ray/auth_token"))
    finally:
        os.environ.pop("RAY_AUTH_TOKEN", None)
        subprocess.run([binary, "stop", "--force"], timeout=60)
    with pytest.raises(ConnectionError, match="Could not find any running Ray instance"):
        state.list_tasks()
