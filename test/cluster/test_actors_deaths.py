"""Actors whose process, host, manager or driver dies: what becomes of them, what is told, what is left."""

import json
import os
import signal

import pytest
from actors import HEAD, ON, actors_of, four
from machines import alive, family, line, shared_memory, start_time, tell, until, workers_of

DETACHED = """
    @ray.remote(num_cpus=0, max_restarts=int(sys.argv[3]))
    class Counter:
        def __init__(self, start):
            self.n = start
        def add(self):
            self.n += 1
            return self.n, os.getpid(), here()
    a = Counter.options(name="d", namespace="x", lifetime="detached", resources={"c": 1}).remote(10)
    print(*ray.get(a.add.remote()), flush=True)
"""
FIND = (
    HEAD
    + """
    deadline = time.monotonic() + 50
    while True:
        try:
            print(*ray.get(ray.get_actor("d", "x").add.remote(), timeout=30), flush=True)
            break
        except ray.exceptions.ActorUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    if "kill" in sys.argv:
        ray.kill(ray.get_actor("d", "x"))
"""
)


@pytest.mark.slow
def test_detached_keeps_its_state(home):
    """Its driver ends, its manager's node is killed: it lives on where it is, with what it knows; then it can be killed."""
    nodes = four(home)
    out = home.python(ON + DETACHED, "127.0.0.2", nodes[0]["gcs_address"], 0)
    n, pid, node = out.split()
    assert (n, node) == ("11", nodes[2]["node_id"])
    assert home.python(FIND).split() == ["12", pid, node]
    os.kill(nodes[1]["pid"], signal.SIGKILL)
    assert home.python(FIND).split() == ["13", pid, node]  # calls need no manager
    until(
        lambda: not [n for n in json.loads(home.python(NODES)) if n["NodeID"] == nodes[1]["node_id"] and n["Alive"]],
        "the head gives the manager up",
        30,
    )
    assert home.python(FIND, "kill").split() == ["14", pid, node]
    until(lambda: start_time(int(pid)) is None, "the end of the actor", 10)
    until(lambda: actors_of(home)[0]["state"] == "DEAD", "the head knows", 10)


NODES = """
    import json, ray
    ray.init("auto", log_to_driver=False, configure_logging=False)
    print(json.dumps(ray.nodes(), default=str))
"""


@pytest.mark.slow
def test_detached_is_restarted_by_its_new_manager(home):
    """The manager's node dies, and then the host's: the actor is made again elsewhere, as its first maker's job is long over."""
    nodes = four(home)
    first = home.python(ON + DETACHED, "127.0.0.2", nodes[0]["gcs_address"], 1).split()
    os.kill(nodes[1]["pid"], signal.SIGKILL)
    until(
        lambda: not [n for n in json.loads(home.python(NODES)) if n["NodeID"] == nodes[1]["node_id"] and n["Alive"]],
        "the head gives the manager up",
        30,
    )
    other = home.node(nodes[0]["gcs_address"], "--resources", '{"c": 1}', ip="127.0.0.5")
    os.kill(nodes[2]["pid"], signal.SIGKILL)
    again = home.python(FIND, "kill").split()
    assert again[0] == "11" and again[1] != first[1] and again[2] == other["node_id"], (first, again)


@pytest.mark.slow
def test_host_node_dies(home):
    """Restarts are on other nodes, up to max_restarts; what is retried gets its value, the rest says so."""
    head = home.head(cpus=0)
    places = [home.node(head["gcs_address"], "--resources", '{"x": 1}', ip=f"127.0.0.{k}") for k in (2, 3, 4)]
    driver = home.driver(
        HEAD
        + """
    @ray.remote(max_restarts=2, resources={"x": 1}, num_cpus=0)
    class A:
        def where(self):
            return here()
        def hold(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return here()
    a = A.remote()
    for k in range(3):
        print(ray.get(a.where.options(max_task_retries=-1).remote()), flush=True)
        go = os.path.abspath(f"go{k}")
        refs = [a.hold.options(max_task_retries=r).remote(go) for r in (0, 5)]
        print("held", flush=True)
        sys.stdin.readline()
        open(go, "w").close()
        for ref in refs:
            try:
                print("value", ray.get(ref), flush=True)
            except ray.exceptions.RayActorError as e:
                print(type(e).__name__, str(e).replace("\\n", " "), flush=True)
    """
    )
    by_id = {n["node_id"]: n for n in places}
    for k in range(3):
        node = line(driver, 90)
        assert node in by_id
        assert line(driver) == "held"
        os.kill(by_id.pop(node)["pid"], signal.SIGKILL)
        tell(driver)
        first, second = line(driver, 90), line(driver, 90)
        if k < 2:
            assert first.startswith("ActorUnavailableError"), first
            assert second.split()[0] == "value" and second.split()[1] in by_id, second
        else:
            for text in (first, second):
                assert text.startswith("ActorDiedError") and f"node has died. Node Id: {node}" in text, text
    assert driver.wait(20) == 0


@pytest.mark.slow
def test_death_causes(home):
    """Exit code or signal, and the last lines that the process wrote to stderr, wherever it ran."""
    nodes = four(home)
    out = home.python(HEAD + """
    import signal
    class A:
        def die(self, how):
            print("last words of", how, file=sys.stderr, flush=True)
            if how == "exit":
                sys.exit(4)
            elif how == "_exit":
                os._exit(5)
            elif how == "zero":
                sys.exit(0)
            elif how == "exit_actor":
                ray.actor.exit_actor()
            else:
                os.kill(os.getpid(), getattr(signal, how))
                time.sleep(100)
        def ok(self):
            return 1
    A = ray.remote(num_cpus=0)(A)
    for where in ({}, {"c": 1}):
        for how in ("exit", "_exit", "SIGKILL", "SIGSEGV", "SIGTERM", "zero", "exit_actor", "kill", "init"):
            a = A.options(resources=where).remote(*([1] if how == "init" else [])) if how != "init" else None
            if how == "init":
                class B:
                    def __init__(self):
                        raise ValueError("made wrong")
                    def die(self, how):
                        pass
                a = ray.remote(num_cpus=0)(B).options(resources=where).remote()
            elif how == "kill":
                ray.get(a.ok.remote())
                ray.kill(a)
            else:
                ray.get(a.ok.remote())
            try:
                ray.get(a.die.remote(how))
                print(how, "no error")
            except ray.exceptions.ActorDiedError as e:
                print(how, str(e).replace("\\n", " "))
    """, timeout=120)  # fmt: skip
    rows = [r.split(" ", 1) for r in out.splitlines()]
    assert len(rows) == 18, out
    parts = {
        "exit": ("exit code 4", "last words of exit", "SYSTEM_ERROR"),
        "_exit": ("exit code 5", "last words of _exit", "SYSTEM_ERROR"),
        "SIGKILL": ("SIGKILL", "last words of SIGKILL", "SYSTEM_ERROR"),
        "SIGSEGV": ("SIGSEGV", "last words of SIGSEGV", "SYSTEM_ERROR"),
        "SIGTERM": ("SIGTERM", "last words of SIGTERM"),
        "zero": ("INTENDED_USER_EXIT",),
        "exit_actor": ("exit_actor() is called", "INTENDED_USER_EXIT"),
        "kill": ("killed by `ray.kill`",),
        "init": ("creation task", "ValueError: made wrong"),
    }
    for how, text in rows:
        for part in parts[how]:
            assert part in text, (how, part, text)
    assert nodes


@pytest.mark.slow
def test_lent_again_when_the_process_is_gone(home):
    """The next actor gets the GPU, and the name, only when the process of the one before has ended."""
    head = home.head("--num-gpus=1")
    node = home.node(head["gcs_address"], "--num-gpus=1", ip="127.0.0.2")
    out = home.python(HEAD + """
    import signal
    @ray.remote(num_gpus=1, num_cpus=0)
    class A:
        def __init__(self, before):
            self.ended = before is None or not os.path.exists(f"/proc/{before}")
        def told(self):
            return os.getpid(), self.ended, ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]
        def stubborn(self):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    for where in sys.argv[1:]:
        before, a = None, None
        for k in range(20):
            how = k % 4
            new = A.options(name=f"n{where}", scheduling_strategy=Affinity(where, soft=False))
            if a is not None:
                if how == 0:
                    ray.kill(a)
                elif how == 1:
                    os.kill(before, signal.SIGKILL)
                elif how == 2:
                    del a
                else:
                    a.__ray_terminate__.remote()
            deadline = time.monotonic() + 20
            while True:
                try:
                    a = new.remote(before)
                    break
                except ValueError as e:
                    assert "already taken" in str(e), e
                    assert time.monotonic() < deadline
                    time.sleep(0.002)
            before, ended, gpus, seen = ray.get(a.told.remote())
            assert ended and gpus == [0] and seen == "0", (k, ended, gpus, seen)
        del a
    print("ok")
    """, head["node_id"], node["node_id"], timeout=120)  # fmt: skip
    assert out.strip() == "ok"


@pytest.mark.parametrize("who", ["driver", "actor", "daemon"])
def test_nothing_is_left(home, who):
    """kill -9 of one process of three: what belonged to it has gone 5 s later, on all nodes."""
    head = home.head(cpus=2)
    node = home.node(head["gcs_address"], "--resources", '{"b": 1}', ip="127.0.0.2", cpus=2)
    driver = home.driver(
        HEAD
        + """
    @ray.remote(num_cpus=0)
    class A:
        def __init__(self, *others):
            self.others = others
            self.own = ray.put(bytes(1 << 20))
            self.child = None
        def pid(self):
            return os.getpid()
        def make(self):
            self.child = A.options(resources={"b": 0.1}).remote()
            return ray.get(self.child.pid.remote())
    ray.get(ray.put(bytes(1 << 20)))
    far = A.options(resources={"b": 0.1}).remote()
    near = A.options(scheduling_strategy=Affinity(here(), soft=False)).remote(far)
    print(*ray.get([near.pid.remote(), near.make.remote(), far.pid.remote()]), flush=True)
    for _ in sys.stdin:
        print(ray.get(far.pid.remote()), flush=True)
    """
    )
    near, child, far = ((int(p), start_time(int(p))) for p in line(driver).split())
    assert all(map(alive, (near, child, far)))
    mine = {p for n in (head, node) for p, _ in family(n["pid"])}
    stores = {key for key, holders in shared_memory().items() if holders & mine}
    assert len(stores) == 2
    if who == "driver":
        driver.kill()
        driver.wait()
        ends, lives = (near, child, far), ()
    elif who == "actor":
        os.kill(near[0], signal.SIGKILL)
        ends, lives = (near, child), (far,)
    else:
        ends = (far, child, *family(node["pid"]))
        lives = (near,)
        os.kill(node["pid"], signal.SIGKILL)
    until(lambda: not any(map(alive, ends)), f"the end of {ends}", 5)
    assert all(map(alive, lives))
    if who == "actor":
        tell(driver)
        assert int(line(driver)) == far[0]
    driver.kill()
    driver.wait()
    for n in (head, node):
        if who == "daemon" and n is node:
            continue
        until(lambda n=n: len(workers_of(n["pid"])) <= 2, "the end of the workers", 20)
    left = stores & set(shared_memory())
    assert len(left) == (1 if who == "daemon" else 2), "a store stays as long as its daemon"
    home.ray("stop", "--force")
    until(lambda: not stores & set(shared_memory()), "the end of the stores", 10)
    sockets = [p for p in home.root.rglob("*") if p.is_socket()]
    assert not sockets, sockets
