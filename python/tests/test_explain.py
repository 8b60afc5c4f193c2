"""ray.util.state.explain, `ray explain`, and the reasons that errors and warnings give."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import time

import pytest

import ray
from ray.util.state import explain


@ray.remote
def until(path, value=None):
    """Return ``value`` once a file is there."""
    pathlib.Path(path + ".started").touch()
    while not os.path.exists(path):
        time.sleep(0.01)
    return value


@ray.remote
def through(ref_in_list):
    return ray.get(ref_in_list[0])


@ray.remote(num_cpus=0, max_restarts=1)
class Keeper:
    def keep(self, refs=()):
        self.refs = refs
        return os.getpid()

    def run(self, path):
        while not os.path.exists(path):
            time.sleep(0.01)

    def die(self):
        os._exit(7)


def eventually(subject, test, seconds=30):
    """The explanation of ``subject`` for which ``test`` holds."""
    end = time.monotonic() + seconds
    while True:
        found = explain(subject)
        if test(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_tasks(ray_2, tmp_path):
    go = str(tmp_path / "go")
    running = [until.remote(go, i) for i in range(2)]
    queued = [until.remote(go) for _ in range(3)]
    found = eventually(running[0].task_id(), lambda x: x["state"] == "RUNNING" and x.get("pid"))
    assert found["name"] == "until" and found["retries_left"] == 3
    found = explain(queued[1].task_id())
    assert found["state"] == "PENDING_NODE_ASSIGNMENT"
    assert (found["queue"]["place"], found["queue"]["of"]) == (2, 3)
    (node,) = found["nodes"]
    assert node["node_id"] == ray.get_runtime_context().get_node_id() and "has free only" in node["why"]
    assert "number 2 of 3" in str(found) and found["id"] in str(found)
    huge = until.options(resources={"unobtainium": 1}, name="huge").remote(go)
    assert explain(huge.task_id())["name"] == "huge" and explain(huge)["name"] == "huge"
    later = through.options(num_cpus=0).remote(huge)
    (missing,) = explain(later.task_id())["missing"]
    assert missing["object_id"] == huge.hex() and "unobtainium" in missing["why"]
    inside = through.options(num_cpus=0).remote([huge])
    found = eventually(inside.task_id(), lambda x: "where a ray.get waits" in x["why"])
    assert huge.hex() in found["why"] and "unobtainium" in found["why"]
    (tmp_path / "go").touch()
    assert ray.get(running) == [0, 1]
    assert explain(running[0].task_id())["state"] == "FINISHED"


def test_objects(ray_2):
    ref = ray.put(bytes(200_000))
    box = ray.put([ref])
    keeper = Keeper.remote()
    pid = ray.get(keeper.keep.remote([ref]))
    found = explain(ref)
    assert found["state"] == "READY" and found["size"] > 200_000
    assert found["copies"] == [{"node_id": ray.get_runtime_context().get_node_id(), "primary": True}]
    what = " / ".join(h["what"] for h in found["holders"])
    assert f"refs in driver {os.getpid()}" in what and f"refs in worker {pid}" in what and box.hex() in what
    failed = through.remote([1])
    with pytest.raises(ValueError):
        ray.get(failed)
    assert explain(failed)["is_error"]
    text = ref.hex()
    del box, ref, keeper
    found = eventually(text, lambda x: x["state"] == "UNKNOWN")
    assert "no daemon knows of it" in found["why"]


def test_actors(ray_2, tmp_path):
    go = str(tmp_path / "go")
    keeper = Keeper.options(name="kept").remote()
    pid = ray.get(keeper.keep.remote())
    found = explain(keeper)
    assert (found["state"], found["pid"], found["name"]) == ("ALIVE", pid, "Keeper")
    calls = [keeper.run.remote(go) for _ in range(3)]
    found = eventually(keeper, lambda x: x["actor"].get("running"))
    (caller,) = found["actor"]["callers"]
    assert caller["caller"] == f"driver {os.getpid()}" and caller["sent"] + caller["waiting"] == 3
    assert explain(calls[2].task_id())["actor_id"] == keeper._actor_id.hex()
    (tmp_path / "go").touch()
    ray.get(calls)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(keeper.die.remote())
    found = eventually(keeper, lambda x: x["state"] == "ALIVE" and x["actor"]["incarnation"] == 1)
    (past,) = found["actor"]["past"]
    assert past["pid"] == pid and "exit code 7" in past["text"] and found["actor"]["restarts_left"] == 0
    ray.kill(keeper)
    found = eventually(keeper, lambda x: x["state"] == "DEAD")
    assert "ray.kill" in found["why"] and len(found["actor"]["past"]) == 2
    huge = Keeper.options(num_cpus=1000).remote()
    huge.keep.remote()
    found = eventually(huge, lambda x: "creation" in x.get("actor", {}))
    assert "1000.0" in found["why"] and found["actor"]["callers"][0]["waiting"] == 1


def test_wrong_subjects(ray_2):
    for wrong in ("xyz", "", "ab" * 23):
        with pytest.raises(ValueError, match="is not the id of a task"):
            explain(wrong)
    with pytest.raises(ValueError, match="neither an ObjectRef"):
        explain(5)
    assert explain("ab" * 24)["state"] == "UNKNOWN"
    with pytest.raises(NotImplementedError):
        explain("ab" * 24, address="x:1")
    ray.shutdown()
    with pytest.raises(ray.exceptions.RaySystemError):
        explain("ab" * 24)


def test_across_nodes_and_by_command(cluster, tmp_path):
    go = str(tmp_path / "go")
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, resources={"there": 1})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)
    nodes = {("there" in n["Resources"]): n["NodeID"] for n in ray.nodes()}
    huge = until.options(resources={"unobtainium": 1}).remote(go)
    away = through.options(resources={"there": 0.1}, num_cpus=0).remote([huge])
    found = eventually(away.task_id(), lambda x: "where a ray.get waits" in x.get("elsewhere", [{}])[0].get("why", ""))
    assert found["runs_on"] == nodes[True] and found["elsewhere"][0]["node_id"] == nodes[True]
    held = explain(huge)["holders"]
    assert {h["node_id"] for h in held} == set(nodes.values())
    with pytest.raises(ray.exceptions.GetTimeoutError) as e:
        ray.get(away, timeout=0.1)
    assert "unobtainium" in e.value.waiting[away]  # the other node was asked
    keeper = Keeper.options(resources={"there": 0.1}).remote()
    ray.get(keeper.keep.remote())
    calls = [keeper.run.remote(go) for _ in range(2)]
    found = eventually(keeper, lambda x: x["actor"].get("running"))
    assert found["runs_on"] == nodes[True] and found["actor"]["manager_node_id"] == nodes[False]

    command = [os.path.join(os.path.dirname(sys.executable), "ray"), "explain", "--address", cluster.address]
    if os.environ.get("GRAY_BIN"):
        command[0] = os.environ["GRAY_BIN"]
    said = subprocess.run([*command, away.task_id().hex()], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and "unobtainium" in said.stdout, said
    said = subprocess.run([*command, repr(keeper), "--format", "json"], capture_output=True, text=True, timeout=60)
    assert json.loads(said.stdout)["actor"]["running"], said
    said = subprocess.run([*command, "xyz"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 2 and "is not the id of a task" in said.stderr
    env = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    said = subprocess.run([*command, away.hex()], capture_output=True, text=True, timeout=60, env=env)
    assert said.returncode == 1 and "token" in said.stderr and not said.stdout
    (tmp_path / "go").touch()
    ray.get(calls)


def test_a_wait_is_not_silent(ray_2, monkeypatch):
    from ray._core import client

    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    monkeypatch.setattr(client, "_WARN_AFTER", 0.05)
    never = until.options(resources={"unobtainium": 1}).remote("x")
    keep = Keep()
    logging.getLogger("ray").addHandler(keep)
    try:
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(never, timeout=2)
    finally:
        logging.getLogger("ray").removeHandler(keep)
    said = [text for text in records if "Waiting for 1 object(s)" in text]
    assert 3 <= len(said) <= 8  # after 0.05, 0.1, 0.2, 0.4, 0.8 and 1.6 s
    assert all("unobtainium" in text for text in said)
