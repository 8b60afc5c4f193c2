"""Nodes that die, hang, leave and join; a head that is killed and comes back."""

import json
import os
import signal
import socket
import subprocess

import pytest
from machines import alive, children, family, line, restart, tell, until, workers_of

CONNECT = """
    import os, sys, time, ray
    ray.init("auto", log_to_driver=False)
"""


def nodes_of(home, driver_env=None):
    """What ``ray.nodes()`` says: {node id: row}."""
    out = home.python("""
        import json, ray
        ray.init("auto", log_to_driver=False, configure_logging=False)
        print(json.dumps({n["NodeID"]: n for n in ray.nodes()}, default=str))
    """)
    return json.loads(out)


@pytest.mark.slow
def test_killed_node(home):
    """Its tasks run elsewhere; what only it held is lost, and says where; what its tasks owned fails by its owner."""
    head = home.head(cpus=1)
    dying = home.node(head["gcs_address"], "--resources", '{"dying": 4}', ip="127.0.0.2", cpus=2)
    driver = home.driver(CONNECT + """
    @ray.remote(num_cpus=0)
    def where(folder):
        node = ray.get_runtime_context().get_node_id()
        open(os.path.join(folder, node), "w").close()
        while len(os.listdir(folder)) < 2:
            time.sleep(0.005)
        return node

    @ray.remote(resources={"dying": 1}, max_retries=0)
    def make():
        return bytes(1 << 20)

    @ray.remote(resources={"dying": 1}, max_retries=0)
    def own():
        return [ray.put(bytes(1 << 20)), ray.put(1)]

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity
    os.mkdir("runs")
    moved = where.options(scheduling_strategy=Affinity(sys.argv[1], soft=True)).remote(os.path.abspath("runs"))
    lost = make.remote()
    ray.wait([lost], fetch_local=False)
    big, small = ray.get(own.remote())
    late = ray.remote(lambda x: len(x)).options(resources={"later": 1}).remote(lost)
    while not os.listdir("runs"):
        time.sleep(0.005)
    print(os.listdir("runs")[0], flush=True)
    print(ray.get(moved), flush=True)
    for ref in (lost, big, small):
        try:
            print("value", type(ray.get(ref)), flush=True)
        except ray.exceptions.RayError as e:
            print(type(e).__name__, str(e).replace("\\n", " "), flush=True)
    (dead,) = [n for n in ray.nodes() if not n["Alive"]]
    print(dead["NodeID"], dead["Resources"], dead["DeathReason"], dead["DeathReasonMessage"], flush=True)
    print(ray.cluster_resources()["CPU"], flush=True)
    try:
        ray.get(late)
    except Exception as e:
        print(type(e).__name__, flush=True)
    """, dying["node_id"])  # fmt: skip
    assert line(driver) == dying["node_id"]
    os.kill(dying["pid"], signal.SIGKILL)
    assert line(driver) == head["node_id"]
    text = line(driver)
    assert (
        text.startswith("ObjectLostError ") and f"node {dying['node_id']}" in text and "made by task make (" in text
    ), text
    for _ in range(2):
        text = line(driver)
        assert text.startswith("OwnerDiedError ") and (dying["node_id"] in text or "127.0.0.2" in text), text
    text = line(driver)
    assert text.startswith(f"{dying['node_id']} {{}} ") and "heard nothing from it" in text, text
    assert line(driver) == "1.0"
    home.node(head["gcs_address"], "--resources", '{"later": 1}', ip="127.0.0.3")
    assert "ObjectLostError" in line(driver)
    assert driver.wait(20) == 0


@pytest.mark.slow
def test_copy_of_a_killed_node_is_kept(home):
    """The node that made an object dies; the copy on another is not evicted any more, though its store is full."""
    head = home.head(cpus=1)
    dying = home.node(head["gcs_address"], "--resources", '{"dying": 1}', ip="127.0.0.2")
    keeper = home.node(
        head["gcs_address"], "--resources", '{"keeper": 1}', "--object-store-memory=104857600", ip="127.0.0.3"
    )
    driver = home.driver(CONNECT + """
    @ray.remote(resources={"dying": 1}, max_retries=0)
    def make():
        return bytes(40 << 20)

    @ray.remote(resources={"keeper": 1}, max_retries=0)
    def keep(box, path):
        print(len(ray.get(box[0])))
        open(path + ".here", "w").close()
        while not os.path.exists(path):
            time.sleep(0.01)
        held = []
        try:
            for _ in range(2):
                held.append(ray.put(bytes(40 << 20)))
        except ray.exceptions.ObjectStoreFullError as e:
            return str(e)

    ref = make.remote()
    ray.wait([ref], fetch_local=False)
    path = os.path.abspath("go")
    kept = keep.remote([ref], path)
    while not os.path.exists(path + ".here"):
        time.sleep(0.01)
    print("copied", flush=True)
    sys.stdin.readline()
    while sum(n["Alive"] for n in ray.nodes()) > 2:
        time.sleep(0.05)
    open(path, "w").close()
    print(ray.get(kept).replace("\\n", " "), flush=True)
    print(len(ray.get(ref)), flush=True)
    """)  # fmt: skip
    assert line(driver) == "copied"
    os.kill(dying["pid"], signal.SIGKILL)
    tell(driver)
    text = line(driver, 60)
    assert "40.0 MiB ObjectRef(" in text and f"kept for node {head['node_id']}" in text, text
    assert line(driver) == str(40 << 20)
    assert driver.wait(20) == 0 and alive((keeper["pid"], keeper["start_time"]))


@pytest.mark.slow
def test_stopped_node_loses_its_lease(home):
    """A daemon that hangs stops its workers when it goes on, and starts afresh as the head has given it up."""
    head = home.head(cpus=1)
    hung = home.node(head["gcs_address"], "--resources", '{"hung": 1}', ip="127.0.0.2", cpus=1)
    driver = home.driver(CONNECT + """
    @ray.remote(num_cpus=0, max_retries=1)
    def hold(folder):
        open(os.path.join(folder, str(os.getpid())), "w").close()
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.01)
        return ray.get_runtime_context().get_node_id()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity
    os.mkdir("runs")
    ref = hold.options(scheduling_strategy=Affinity(sys.argv[1], soft=True)).remote(os.path.abspath("runs"))
    print(ray.get(ref), flush=True)
    """, hung["node_id"])  # fmt: skip
    runs = home.folder / "runs"
    first = int(until(lambda: runs.exists() and os.listdir(runs), "the first run")[0])
    workers = family(first)
    os.kill(hung["pid"], signal.SIGSTOP)
    try:
        until(lambda: len(os.listdir(runs)) == 2, "the second run", 30)
    finally:
        os.kill(hung["pid"], signal.SIGCONT)
    until(lambda: not any(map(alive, workers)), "the end of the first run", 5)
    (runs / "go").touch()
    assert line(driver) == head["node_id"]
    rows = nodes_of(home)
    assert not rows[hung["node_id"]]["Alive"]
    log = "".join(p.read_text() for p in home.root.glob("session_2*/logs/raylet.*.err"))
    until(lambda: not alive((hung["pid"], hung["start_time"])), "the end of the daemon that was given up", 10)
    log = "".join(p.read_text() for p in home.root.glob("session_2*/logs/raylet.*.err"))
    assert "start it again" in log, log


def test_node_that_leaves(home):
    """A stop in order is known at once, and its tasks run elsewhere."""
    head = home.head(cpus=1)
    leaving = home.node(head["gcs_address"], ip="127.0.0.2", cpus=1)
    driver = home.driver(CONNECT + """
    @ray.remote(num_cpus=0)
    def where(folder):
        node = ray.get_runtime_context().get_node_id()
        open(os.path.join(folder, node), "w").close()
        while len(os.listdir(folder)) < 2:
            time.sleep(0.005)
        return node
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity
    os.mkdir("runs")
    ref = where.options(scheduling_strategy=Affinity(sys.argv[1], soft=True)).remote(os.path.abspath("runs"))
    print(ray.get(ref), flush=True)
    """, leaving["node_id"])  # fmt: skip
    runs = home.folder / "runs"
    until(lambda: runs.exists() and os.listdir(runs), "the first run")
    mine = family(leaving["pid"])
    os.kill(leaving["pid"], signal.SIGTERM)
    assert line(driver, 5) == head["node_id"]
    until(lambda: not any(map(alive, mine)), "the end of the node", 5)
    assert not nodes_of(home)[leaving["node_id"]]["Alive"]


def test_late_node_takes_queued_work(home):
    head = home.head(cpus=0)
    driver = home.driver(
        CONNECT
        + """
    @ray.remote
    def where(k):
        time.sleep(0.01)
        return ray.get_runtime_context().get_node_id()
    refs = [where.remote(k) for k in range(200)]
    print("queued", flush=True)
    print(*set(ray.get(refs)), flush=True)
    """
    )
    assert line(driver) == "queued"
    ids = {home.node(head["gcs_address"], ip=f"127.0.0.{k}", cpus=1)["node_id"] for k in (2, 3)}
    assert set(line(driver).split()) <= ids


@pytest.mark.slow
def test_head_comes_back(home):
    """Daemons keep trying and say so; running work goes on; new work runs once the head is back."""
    head = home.head(cpus=0)
    node = home.node(head["gcs_address"], ip="127.0.0.2", cpus=2)
    code = """
    import os, sys, time, ray
    ray.init(_node_ip_address="127.0.0.2", address=sys.argv[1], log_to_driver=False)
    @ray.remote
    def work(x):
        return x + 1
    @ray.remote
    def hold(go):
        while not os.path.exists(go):
            time.sleep(0.01)
        return "held"
    held = hold.remote(os.path.abspath("go"))
    value = ray.put(bytes(1 << 20))
    print(ray.get(work.remote(1)), ray.get_runtime_context().get_node_id(), flush=True)
    for text in sys.stdin:
        if text.strip() == "held":
            print(ray.get(held), len(ray.get(value)), flush=True)
        elif text.strip() == "nodes":
            try:
                print(sum(n["Alive"] for n in ray.nodes()), flush=True)
            except Exception as e:
                print(type(e).__name__, e, flush=True)
        else:
            print(ray.get(work.remote(int(text))), flush=True)
    """
    driver = home.driver(code, head["gcs_address"])
    answer = line(driver)
    assert answer.startswith("2 "), answer
    on_node = answer.split()[1] == node["node_id"]
    if not on_node:
        pytest.fail("the driver is not on the node that joined: " + answer)
    os.kill(head["pid"], signal.SIGKILL)
    until(lambda: not alive((head["pid"], head["start_time"])), "the end of the head")
    tell(driver, "5")
    assert line(driver) == "6"  # its own daemon has the CPUs
    (log,) = home.root.glob("session_2*/logs/raylet.*.err")
    until(
        lambda: head["gcs_address"] in log.read_text() and "head" in log.read_text(),
        "the daemon says that the head is gone",
        15,
    )
    daemon, back = restart(home, head)
    try:
        assert back["gcs_address"] == head["gcs_address"] and back["session_name"] == head["session_name"]

        def both():
            tell(driver, "nodes")
            return line(driver) == "2"

        until(both, "both nodes are listed", 20)
        tell(driver, "7")
        assert line(driver) == "8"
        (home.folder / "go").touch()
        tell(driver, "held")
        assert line(driver) == "held 1048576"
        assert workers_of(node["pid"])
        out = home.python("""
            import ray
            ray.init("auto", log_to_driver=False, configure_logging=False)
            print(ray.get(ray.remote(lambda: ray.get_runtime_context().get_job_id()).remote()))
        """)
        assert out.strip() not in ("", "01000000")  # job ids go on where they were
    finally:
        driver.stdin.close()
        daemon.terminate()
        daemon.wait(20)


def test_head_that_does_not_come_back(home):
    """Work on the node goes on; what needs the head says so within 5 s."""
    head = home.head(cpus=0)
    home.node(head["gcs_address"], ip="127.0.0.2", cpus=1)
    driver = home.driver("""
    import sys, time, ray
    ray.init(_node_ip_address="127.0.0.2", address=sys.argv[1], log_to_driver=False)
    print("in", flush=True)
    sys.stdin.readline()
    t = time.monotonic()
    try:
        ray.nodes()
    except Exception as e:
        print(isinstance(e, ray.exceptions.RayError), time.monotonic() - t < 6, type(e).__name__, str(e).replace("\\n", " "), flush=True)
    """, head["gcs_address"])  # fmt: skip
    assert line(driver) == "in"
    os.kill(head["pid"], signal.SIGKILL)
    tell(driver)
    text = line(driver)
    assert text.startswith("True True ") and head["gcs_address"] in text and "head" in text, text


def test_a_head_that_is_stopped_ends_its_cluster(home):
    """Unlike one that is killed it will not come back: nobody waits for it, and everybody is told why."""
    head = home.head(cpus=0)
    node = home.node(head["gcs_address"], ip="127.0.0.2", cpus=1)
    driver = home.driver("""
    import sys, time, ray
    ray.init(_node_ip_address="127.0.0.2", address=sys.argv[1], log_to_driver=False)
    @ray.remote
    def hold():
        time.sleep(1000)
    ref = hold.remote()
    print("in", flush=True)
    try:
        ray.get(ref)
    except ray.exceptions.LocalRayletDiedError as e:
        print("told:", str(e).replace("\\n", " "), flush=True)
    try:
        ray.init()
    except RuntimeError as e:
        print("again:", e, flush=True)
    ray.init(ignore_reinit_error=True)
    """, head["gcs_address"])  # fmt: skip
    assert line(driver) == "in"
    os.kill(head["pid"], signal.SIGTERM)
    assert line(driver, 5).startswith(
        f"told: The node daemon ended this session: the head at {head['gcs_address']} was stopped"
    )
    gone = "Here only ray.shutdown() helps, for what this program was connected to is gone: The node daemon ended this session"
    again = line(driver, 5)
    assert again.startswith("again: Maybe you called ray.init twice by accident?") and gone in again, again
    assert gone in driver.communicate(timeout=20)[1]
    until(lambda: not alive((node["pid"], node["start_time"])), "the end of the node")


@pytest.mark.slow
def test_killed_while_its_tasks_run_elsewhere(home):
    """What runs for a dead daemon's driver ends with it, and its resources come back."""
    head = home.head(cpus=0)
    owner = home.node(head["gcs_address"], ip="127.0.0.2", cpus=0)
    runner = home.node(head["gcs_address"], "--resources", '{"runner": 1}', ip="127.0.0.3", cpus=2)
    driver = home.driver("""
        import os, sys, time, ray
        ray.init(_node_ip_address="127.0.0.2", address=sys.argv[1], log_to_driver=False)
        @ray.remote(max_retries=-1)
        def hold():
            open(f"held-{os.getpid()}", "w").close()
            time.sleep(1000)
        refs = [hold.remote() for _ in range(10)]
        print("asked", flush=True)
        try:
            ray.get(refs)
        except ray.exceptions.LocalRayletDiedError as e:
            print("its daemon died", flush=True)
    """, head["gcs_address"])  # fmt: skip
    assert line(driver) == "asked"
    until(lambda: len(list(home.folder.glob("held-*"))) == 2, "two tasks run")
    held = [family(int(p.name[5:])) for p in home.folder.glob("held-*")]
    assert {w for (w, _), *_ in held} <= set(workers_of(runner["pid"]))
    os.kill(owner["pid"], signal.SIGKILL)
    assert line(driver, 5) == "its daemon died"
    until(lambda: not any(alive(p) for processes in held for p in processes), "the end of its tasks", 20)
    out = home.python("""
        import sys, ray
        ray.init(_node_ip_address="127.0.0.3", address=sys.argv[1], log_to_driver=False, configure_logging=False)
        print(ray.get(ray.remote(lambda: "works").options(num_cpus=2).remote()))
    """, head["gcs_address"])  # fmt: skip
    assert out == "works\n"


def supervised(home, address):
    """A node under ``ray start --block``."""
    command = [home.binary, "start", f"--address={address}", "--node-ip-address=127.0.0.2", "--num-cpus=1", "--block"]
    command += ["--dashboard-agent-listen-port=0", "--object-store-memory=209715200"]
    return subprocess.Popen(
        command, env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_supervised_node_joins_the_head_that_replaced_its_own(home):
    head = home.head()
    node = supervised(home, head["gcs_address"])
    try:
        until(lambda: len(home.nodes()) == 2, "the node to join")
        (first,) = [n for n in home.nodes() if not n["head"]]
        os.kill(head["pid"], signal.SIGKILL)
        until(lambda: not alive((head["pid"], head["start_time"])), "the head's end")
        new = home.head(f"--port={head['gcs_address'].rpartition(':')[2]}")
        assert new["session_name"] != head["session_name"]

        def joined():
            return [n for n in home.nodes() if not n["head"] and n["session_name"] == new["session_name"]]

        until(joined, "the node to join the new head")
        assert not alive((first["pid"], first["start_time"]))
        assert node.poll() is None
        code = "import ray; ray.init(); print(sum(n['Alive'] for n in ray.nodes()))"
        until(lambda: home.python(code).strip() == "2", "two nodes in the new cluster")
    finally:
        node.terminate()
        out = node.communicate(timeout=30)[0]
    assert "The head has ended, or was replaced by one of a new cluster: this node joins the new one." in out


def test_a_node_that_waits_for_its_head_ends_when_told(home):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # and nobody listens
        home.ray("get-auth-token", "--generate")
        node = supervised(home, f"127.0.0.1:{s.getsockname()[1]}")
        try:
            until(lambda: children(node.pid), "the daemon to be started")
            node.terminate()
            out = node.communicate(timeout=10)[0]
        finally:
            node.kill()
            node.wait()
    assert node.returncode == 1, out
