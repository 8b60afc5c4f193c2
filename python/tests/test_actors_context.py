"""What an actor learns of itself, and what it holds."""

import os

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
class Context:
    def __init__(self):
        context = ray.get_runtime_context()
        self.in_init = (context.get_actor_id(), context.get_task_name(), title())

    def all(self):
        context = ray.get_runtime_context()
        return {
            "job": context.get_job_id(),
            "task": context.get_task_id(),
            "actor": context.get_actor_id(),
            "actor_name": context.get_actor_name(),
            "name": context.get_task_name(),
            "function": context.get_task_function_name(),
            "resources": context.get_assigned_resources(),
            "restarted": context.was_current_actor_reconstructed,
            "title": title(),
            "pid": os.getpid(),
            "init": self.in_init,
            "canceled": context.is_canceled(),
        }

    def me(self):
        return ray.get_runtime_context().current_actor

    def me_to(self, other):
        return ray.get(other.call.remote(ray.get_runtime_context().current_actor))

    async_calls = 0

    def title_of_another(self, pid):
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().rstrip(b"\0").decode()


@ray.remote
class Other:
    def call(self, handle):
        self.handle = handle
        return repr(handle)


def title():
    with open("/proc/self/cmdline", "rb") as f:
        return f.read().rstrip(b"\0").decode()


def test_of_a_method():
    c = Context.remote()
    ref = c.all.remote()
    seen = ray.get(ref)
    actor_id = c._actor_id.hex()
    assert seen["task"] == ref.task_id().hex() and seen["job"] == ray.get_runtime_context().get_job_id()
    assert seen["actor"] == actor_id and seen["actor_name"] == ""
    assert seen["name"] == "Context.all" and seen["function"] == f"{__name__}.Context.all"
    assert seen["restarted"] is False and seen["canceled"] is False
    assert seen["title"] == "ray::Context.all"
    assert seen["init"] == (actor_id, "Context.__init__", "ray::Context.__init__")
    assert ray.get(c.all.options(name="other").remote())["name"] == "other"
    assert ray.get(c.all.options(name="other").remote())["title"] == "ray::other"
    other = Context.remote()
    assert ray.get(other.title_of_another.remote(seen["pid"])) == "ray::Context"


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({}, {}),
        ({"num_cpus": 1}, {"CPU": 1.0}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 0.5}, {"CPU": 0.5}),
        ({"memory": 1000}, {"memory": 1000.0}),
    ],
)
def test_what_it_holds(options, held):
    assert ray.get(Context.options(**options).remote().all.remote())["resources"] == held


def test_more_plain_actors_than_cpus():
    actors = [Context.remote() for _ in range(8)]
    pids = {seen["pid"] for seen in ray.get([a.all.remote() for a in actors])}
    assert len(pids) == 8


def test_current_actor():
    c = Context.remote()
    assert ray.get(c.me.remote()) == c
    other = Other.remote()
    assert ray.get(c.me_to.remote(other)) == repr(c)
    with pytest.raises(RuntimeError, match="only available in an actor"):
        ray.get_runtime_context().current_actor  # noqa: B018


def test_in_a_task():
    @ray.remote
    def ask():
        context = ray.get_runtime_context()
        return context.get_actor_id(), context.get_actor_name()

    assert ray.get(ask.remote()) == (None, None)


def test_state_of_actors():
    c = Context.options(name="in-state").remote()
    pid = ray.get(c.all.remote())["pid"]
    seen = ray._private.state.actors()[c._actor_id.hex()]
    assert seen["ActorID"] == c._actor_id.hex() and seen["ActorClassName"] == "Context"
    assert seen["Name"] == "in-state" and seen["State"] == "ALIVE" and seen["Pid"] == pid
    assert seen["NumRestarts"] == 0 and seen["IsDetached"] is False
    assert seen["Address"]["NodeID"] == ray.get_runtime_context().get_node_id()
    assert seen["JobID"] == ray.get_runtime_context().get_job_id()
