"""The head hangs, or is killed and comes back: actors answer all the while, and afterwards it knows of them again."""

import os
import signal

import pytest
from actors import HEAD, ON, actors_of
from machines import alive, line, restart, tell, until


@pytest.mark.slow
def test_head_is_away(home):
    """The head's process is stopped for a while: actors on other nodes answer each other, and their drivers."""
    head = home.head(cpus=0)
    home.node(head["gcs_address"], "--resources", '{"b": 1}', ip="127.0.0.2", cpus=2)
    home.node(head["gcs_address"], "--resources", '{"c": 1}', ip="127.0.0.3", cpus=2)
    driver = home.driver(ON + """
    @ray.remote(num_cpus=0)
    class A:
        def __init__(self, other=None):
            self.other, self.n = other, 0
        def add(self):
            self.n += 1
            return self.n
        def ask(self):
            return ray.get(self.other.add.remote())
    b = A.options(resources={"c": 0.1}).remote()
    a = A.options(resources={"b": 0.1}).remote(b)
    d = A.remote()
    print(ray.get([a.ask.remote(), b.add.remote(), d.add.remote()]), flush=True)
    for _ in sys.stdin:
        print(ray.get([a.ask.remote(), b.add.remote(), d.add.remote()]), flush=True)
    """, "127.0.0.2", head["gcs_address"])  # fmt: skip
    first = eval(line(driver))  # noqa: S307
    assert sorted(first) == [1, 1, 2]
    os.kill(head["pid"], signal.SIGSTOP)
    try:
        for k in range(2, 12):
            tell(driver)
            assert sorted(eval(line(driver))) == [k, 2 * k - 1, 2 * k]  # noqa: S307
    finally:
        os.kill(head["pid"], signal.SIGCONT)
    tell(driver)
    assert sorted(eval(line(driver))) == [12, 23, 24]  # noqa: S307


@pytest.mark.slow
def test_head_is_killed_and_comes_back(home):
    """Meanwhile actors answer, one is restarted; then names, places and detached actors are known as before."""
    head = home.head(cpus=0)
    b = home.node(head["gcs_address"], "--resources", '{"b": 1}', ip="127.0.0.2", cpus=2)
    home.node(head["gcs_address"], "--resources", '{"c": 1}', ip="127.0.0.3", cpus=2)
    driver = home.driver(ON.replace("log_to_driver", "namespace='n', log_to_driver") + """
    @ray.remote(num_cpus=0)
    class A:
        def __init__(self, other=None):
            self.other, self.n = other, 0
        def add(self):
            self.n += 1
            return self.n
        def ask(self):
            return ray.get(self.other.add.remote())
        def pid(self):
            return os.getpid()
    far = A.options(name="far", resources={"c": 0.1}).remote()
    kept = A.options(name="kept", lifetime="detached", resources={"c": 0.1}).remote()
    near = A.options(max_restarts=3, max_task_retries=-1, resources={"b": 0.1}).remote(far)
    print(ray.get([near.ask.remote(), kept.add.remote()]), ray.get(near.pid.remote()), flush=True)
    for text in sys.stdin:
        what = text.split()[0]
        if what == "add":
            print(ray.get([near.ask.remote(), far.add.remote(), kept.add.remote()]), flush=True)
        elif what == "pid":
            print(ray.get(near.pid.remote()), flush=True)
        elif what == "names":
            try:
                print(sorted(ray.util.list_named_actors()), flush=True)
            except ray.exceptions.RayError as e:
                print(type(e).__name__, flush=True)
        elif what == "find":
            print(ray.get(ray.get_actor("far").add.remote()), ray.get(ray.get_actor("kept").add.remote()), flush=True)
        elif what == "taken":
            for name in ("far", "kept"):
                try:
                    print("made", A.options(name=name).remote(), flush=True)
                except ValueError as e:
                    print(type(e).__name__, flush=True)
        elif what == "new":
            new = A.options(name="new", resources={"c": 0.1}).remote()
            print(ray.get(new.add.remote()), flush=True)
    """, "127.0.0.2", head["gcs_address"])  # fmt: skip

    def asked(text):
        tell(driver, text)
        return line(driver)

    first = line(driver)
    assert first.startswith("[1, 1] ")
    os.kill(head["pid"], signal.SIGKILL)
    until(lambda: not alive((head["pid"], head["start_time"])), "the end of the head")
    n = [1, 1]  # of far and of kept
    for _ in range(5):
        answers = eval(asked("add"))  # noqa: S307
        n = [n[0] + 2, n[1] + 1]
        assert sorted(answers[:2]) == [n[0] - 1, n[0]] and answers[2] == n[1]
    os.kill(int(first.split()[-1]), signal.SIGKILL)  # its manager is the driver's own daemon, with the CPUs it needs
    assert asked("pid") != first.split()[-1]
    daemon, _ = restart(home, head)
    try:
        until(lambda: asked("names") == "['far', 'kept']", "the names are known again", 30)
        assert asked("find") == f"{n[0] + 1} {n[1] + 1}"
        tell(driver, "taken")
        assert [line(driver), line(driver)] == ["ActorAlreadyExistsError"] * 2
        assert asked("new") == "1"
        states = {r["name"] or "near": r["state"] for r in actors_of(home)}
        assert states == dict.fromkeys(("far", "kept", "near", "new"), "ALIVE"), states
        driver.stdin.close()
        assert driver.wait(20) == 0
        until(lambda: sum(r["state"] == "ALIVE" for r in actors_of(home)) == 1, "only the detached one lives", 20)
        out = home.python(HEAD + """
    a = ray.get_actor("kept", "n")
    print(ray.get(a.add.remote()))
    ray.kill(a)
    """)  # fmt: skip
        assert int(out) == n[1] + 2
        assert alive((b["pid"], b["start_time"]))
    finally:
        daemon.terminate()
        daemon.wait(20)
