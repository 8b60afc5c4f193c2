"""How actors end: by their own wish, by a kill, by a crash."""

import asyncio
import atexit
import os
import sys
import time

import pytest

import ray
from ray.exceptions import ActorDiedError, RayActorError

pytestmark = pytest.mark.usefixtures("shared_ray")


def mark(path, text):
    with open(path, "a") as f:
        f.write(text + " ")


def marks(path, last, seconds=10):
    """What was marked, once the last is there."""
    deadline = time.monotonic() + seconds
    while True:
        text = path.read_text().split() if path.exists() else []
        if text and text[-1] == last or time.monotonic() > deadline:
            return text
        time.sleep(0.01)


class Exits:
    def __init__(self, path, how=None):
        self.path = path
        atexit.register(mark, path, "atexit")
        if how:
            getattr(self, how)()

    def exit(self):
        ray.actor.exit_actor()

    def exit_caught(self):
        try:
            ray.actor.exit_actor()
        except BaseException:
            mark(self.path, "caught")
        return "swallowed"

    def sys_exit(self, status=0):
        sys.exit(status)

    def crash(self):
        os._exit(3)

    def raises(self):
        raise ValueError("init")

    def pid(self):
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"

    def __ray_shutdown__(self):
        mark(self.path, "shutdown")
        raise ValueError("nobody minds")


Plain = ray.remote(Exits)


@ray.remote
class Async(Exits):
    async def exit(self):
        ray.actor.exit_actor()

    async def exit_nested(self):
        await asyncio.create_task(self.exit())

    async def exit_caught(self):
        try:
            ray.actor.exit_actor()
        except BaseException:
            mark(self.path, "caught")
        await asyncio.sleep(0.01)
        return "swallowed"

    async def pid(self):
        return os.getpid()


@pytest.mark.parametrize(
    ("cls", "method"),
    [
        (Plain, "exit"),
        (Plain, "exit_caught"),
        (Plain, "sys_exit"),
        (Plain.options(max_concurrency=3), "exit"),
        (Plain.options(max_concurrency=3), "exit_caught"),
        (Async, "exit"),
        (Async, "exit_nested"),
        (Async, "exit_caught"),
    ],
)
def test_exit_on_purpose(tmp_path, cls, method):
    path = tmp_path / "log"
    a = cls.remote(str(path))
    pid = ray.get(a.pid.remote())
    ref = getattr(a, method).remote()
    later = [a.pid.remote() for _ in range(20)]
    with pytest.raises(RayActorError) as e:
        ray.get(ref, timeout=20)
    assert "unexpectedly exits" not in str(e.value)
    assert marks(path, "atexit")[-2:] == ["shutdown", "atexit"]
    for ref in later[-1], a.pid.remote():
        try:  # one that runs beside the exit may have its value
            assert ray.get(ref, timeout=20) == pid and ref is later[-1] and cls is not Plain
        except RayActorError as e:
            assert "unexpectedly exits" not in str(e)
    deadline = time.monotonic() + 20
    while True:
        try:
            ray.get(a.pid.remote(), timeout=20)
        except ActorDiedError as e:
            assert "exit" in str(e)
            break
        except RayActorError:
            pass
        assert time.monotonic() < deadline


def test_many_calls_behind_an_exit(tmp_path):
    a = Plain.remote(str(tmp_path / "log"))
    ray.get(a.pid.remote())
    refs = [a.sleep.remote(0.1), a.exit.remote(), *[a.pid.remote() for _ in range(3000)]]
    assert ray.get(refs[0]) == "slept"
    for ref in refs[1:]:
        with pytest.raises(RayActorError):
            ray.get(ref, timeout=30)


@pytest.mark.parametrize("how", ["exit", "exit_caught", "sys_exit"])
def test_exit_in_the_constructor(tmp_path, how):
    path = tmp_path / "log"
    a = Plain.remote(str(path), how)
    with pytest.raises(RayActorError):
        ray.get(a.pid.remote(), timeout=20)
    assert marks(path, "atexit")[-2:] == ["shutdown", "atexit"]


@pytest.mark.parametrize("status", [1, 4])
def test_exit_with_a_status_is_a_crash(tmp_path, status):
    a = Plain.options(max_restarts=1).remote(str(tmp_path / "log"))
    pid = ray.get(a.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(a.sys_exit.remote(status), timeout=20)
    again = None
    while again is None:
        try:
            again = ray.get(a.pid.remote(), timeout=20)
        except ray.exceptions.ActorUnavailableError:
            time.sleep(0.05)
    assert again != pid
    with pytest.raises(RayActorError) as e:
        ray.get(a.sys_exit.remote(status), timeout=20)
    with pytest.raises(ActorDiedError, match=f"exit code {status}"):
        while True:
            ray.get(a.pid.remote(), timeout=20)
            raise e.value


def test_an_exit_on_purpose_is_no_crash(tmp_path):
    a = Plain.options(max_restarts=-1, max_task_retries=-1).remote(str(tmp_path / "log"))
    ray.get(a.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(a.exit.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(a.pid.remote(), timeout=20)


def test_terminate(tmp_path):
    path = tmp_path / "log"
    a = Plain.options(max_restarts=1).remote(str(path))
    before = a.pid.remote()
    end = a.__ray_terminate__.remote()
    assert ray.get(before) > 0
    with pytest.raises(ActorDiedError):
        ray.get(end, timeout=20)
    assert marks(path, "atexit") == ["shutdown", "atexit"]


def test_out_of_scope(tmp_path):
    path = tmp_path / "log"
    a = Plain.remote(str(path))
    ref = a.sleep.remote(0.1)
    del a
    assert ray.get(ref) == "slept"
    assert marks(path, "atexit") == ["shutdown", "atexit"]


@pytest.mark.parametrize("cls", [Plain, Async, Plain.options(max_concurrency=2)])
def test_kill(tmp_path, cls):
    path = tmp_path / "log"
    a = cls.remote(str(path))
    ray.get(a.pid.remote())
    running = a.sleep.remote(100)
    ray.kill(a)
    with pytest.raises(RayActorError):
        ray.get(running, timeout=20)
    with pytest.raises(ActorDiedError, match="ray.kill"):
        ray.get(a.pid.remote(), timeout=20)
    ray.kill(a)
    assert not path.exists()


def test_kill_with_restart(tmp_path):
    a = Plain.options(max_restarts=1).remote(str(tmp_path / "log"))
    pid = ray.get(a.pid.remote())
    ray.kill(a, no_restart=False)
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline
        try:
            if ray.get(a.pid.remote(), timeout=20) != pid:
                break
        except ray.exceptions.ActorUnavailableError:
            pass


@pytest.mark.parametrize("what", [3, None, Plain, "a"])
def test_kill_of_something_else(what):
    with pytest.raises(ValueError, match="ray.kill.. only supported for actors. For tasks, try ray.cancel.."):
        ray.kill(what)


def test_crash(tmp_path):
    a = Plain.remote(str(tmp_path / "log"))
    with pytest.raises(RayActorError):
        ray.get(a.crash.remote(), timeout=20)
    with pytest.raises(ActorDiedError, match="exit code 3|died|connection"):
        ray.get(a.pid.remote(), timeout=20)
    assert not (tmp_path / "log").exists()


def test_exit_actor_elsewhere():
    with pytest.raises(TypeError, match="exit_actor API is called on a non-actor worker"):
        ray.actor.exit_actor()

    @ray.remote
    def task():
        ray.actor.exit_actor()

    with pytest.raises(TypeError, match="exit_actor API is called on a non-actor worker"):
        ray.get(task.remote())
