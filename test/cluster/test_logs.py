"""What workers print, on clusters of real daemons: in files, and on the right driver."""

import json
import re
import time

from machines import line, tell, until

START = """
    import os, sys, time, ray
    ray.init({address}, logging_level="error")
"""
HERE = START.format(address="num_cpus=2")
AUTO = START.format(address='"auto"')
ON = START.format(address="address=sys.argv[2], _node_ip_address=sys.argv[1]")


def run(home, code, *args, env=None, status=0, timeout=120):
    """Run a driver to its end; what it printed to stdout and to stderr, as lists of lines without numbers of processes."""
    driver = home.driver(code, *args, env=env)
    out, err = driver.communicate(timeout=timeout)
    assert driver.returncode == status, f"status {driver.returncode}\n{out}\n{err}"
    return [re.sub(r"pid=\d+", "pid=N", text).splitlines() for text in (out, err)]


def two(home, *args, env=None):
    """A head, and a node with the resource b."""
    head = home.head(*args, env=env)
    return head, home.node(head["gcs_address"], "--resources", json.dumps({"b": 100}), ip="127.0.0.2", env=env)


def test_streams_and_names(home):
    """Each stream goes to the driver's own; tasks, named tasks and actors say who they are; all is there after shutdown."""
    out, err = run(home, HERE + """
    @ray.remote
    def f():
        print("f out")
        print("f err", file=sys.stderr)
        print("no end", end="")

    @ray.remote
    class A:
        def __init__(self):
            print("A begins")
        def m(self):
            print("A.m")

    @ray.remote
    class B(object):
        def __init__(self, x):
            self.x = x
            print("B begins")
        def __repr__(self):
            return f"B({self.x})"
        async def m(self):
            print("B.m", file=sys.stderr)

    ray.get(f.remote())
    ray.get(f.options(name="other").remote())
    ray.get([A.remote().m.remote(), B.remote(3).m.remote()])
    """)  # fmt: skip
    assert sorted(out) == sorted([
        "(f pid=N) f out", "(f pid=N) no end", "(other pid=N) f out", "(other pid=N) no end",
        "(A pid=N) A begins", "(A pid=N) A.m", "(B pid=N) B begins",
    ])  # fmt: skip
    assert sorted(err) == ["(B(3) pid=N) B.m", "(f pid=N) f err", "(other pid=N) f err"]


def test_whatever_writes_to_the_descriptors(home):
    """C code, threads, processes that a task starts, forks of a worker, bytes that are no text, and the last words of the dead."""
    out, err = run(home, HERE + r"""
    import multiprocessing, subprocess, threading

    @ray.remote
    def f():
        os.write(1, b"by descriptor \xff\n")
        subprocess.run("echo by a shell; echo and its errors >&2", shell=True, check=True)
        thread = threading.Thread(target=print, args=("by a thread",))
        thread.start()
        thread.join()
        child = multiprocessing.get_context("fork").Process(target=lambda: print("by a fork"))
        child.start()
        child.join()

    @ray.remote(max_retries=0)
    def dies():
        print("last words", end="", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)

    ray.get(f.remote())
    try:
        ray.get(dies.remote())
    except ray.exceptions.WorkerCrashedError as e:
        print("died" if "last words" in str(e) and ":task_name:" not in str(e) else e)
    """)  # fmt: skip
    assert set(out) == {"died"} | {
        f"(f pid=N) by {what}" for what in ("descriptor \ufffd", "a shell", "a thread", "a fork")
    }
    assert "(f pid=N) and its errors" in err
    assert any(text.startswith("(dies pid=N) last words") for text in err), err


def test_switched_off(home):
    """By log_to_driver and by RAY_LOG_TO_DRIVER; the files have it all the same."""
    program = "\n    @ray.remote\n    def f():\n        print('here', flush=True)\n    ray.get(f.remote())\n    "
    files = 'import glob; print([open(p).read() for p in glob.glob(ray._private.worker.global_worker.node.get_session_dir_path() + "/logs/worker-*-01000000-*.out") if os.path.getsize(p)])'
    for start, env in (
        (START.format(address="num_cpus=1, log_to_driver=False"), {}),
        (START.format(address="num_cpus=1"), {"RAY_LOG_TO_DRIVER": "0"}),
    ):
        out, err = run(home, start + program + files, env=env)
        assert (re.sub(":task_id:[0-9a-f]{16}", ":task_id:N", out[0]), err) == (
            str([":task_name:f\n:task_id:N\nhere\n"]),
            [],
        )
        assert len(out) == 1


def test_lines_that_are_alike(home):
    """Four processes' lines that differ in numbers are two lines; with RAY_DEDUP_LOGS=0 they are four."""
    program = HERE + """
    @ray.remote(num_cpus=0)
    class A:
        def m(self, i):
            print("step", i)
    for i, a in enumerate([A.remote() for _ in range(4)]):
        ray.get(a.m.remote(i))
    """  # fmt: skip
    out, _ = run(home, program)
    assert len(out) == 2
    assert out[0].startswith("(A pid=N) step ")
    assert "[repeated 3x across cluster]" in out[1] and "RAY_DEDUP_LOGS" in out[1]
    out, _ = run(home, program, env={"RAY_DEDUP_LOGS": "0"})
    assert sorted(out) == [f"(A pid=N) step {i}" for i in range(4)]
    out, _ = run(home, program, env={"RAY_DEDUP_LOGS_SKIP_REGEX": "step [02]", "RAY_DEDUP_LOGS_ALLOW_REGEX": "step"})
    assert sorted(out) == ["(A pid=N) step 1", "(A pid=N) step 3"]


def test_logging_config(home):
    """Lines of loggers carry the ids of where they come from, in tasks, actors and the driver, and have no prefix."""
    out, err = run(home, """
    import logging, ray
    ray.init(num_cpus=2, logging_config=ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"]))
    @ray.remote
    def f():
        logging.getLogger("mine").info("in a task", extra={"more": 5})
    @ray.remote
    class A:
        def m(self):
            logging.getLogger("mine").warning("in an actor")
            print("printed")
    ray.get(f.remote())
    ray.get(A.options(name="a").remote().m.remote())
    logging.getLogger("mine").info("in the driver")
    """)  # fmt: skip
    assert out == ["printed"]
    said = {d["message"]: d for d in map(json.loads, err)}
    where = ["asctime", "levelname", "message", "filename", "lineno", "process", "name"]
    ids, when = ["job_id", "worker_id", "node_id"], ["timestamp_ns"]
    task = ["task_id", "task_name", "task_func_name"]
    assert list(said["in the driver"]) == where + ids + when
    assert list(said["in a task"]) == where + ["more"] + ids + task + when
    assert list(said["in an actor"]) == where + ids + ["actor_id"] + task + ["actor_name"] + when
    assert said["in a task"]["task_name"] == "f" and said["in an actor"]["actor_name"] == "a"


def test_bars(home):
    """The lines of tqdm_ray are drawn by the driver, not shown."""
    out, err = run(home, HERE + """
    from ray.experimental import tqdm_ray
    @ray.remote
    def f():
        for _ in tqdm_ray.tqdm(range(3), desc="steps"):
            pass
        print("done")
    ray.get(f.remote())
    """)  # fmt: skip
    assert out == ["(f pid=N) done"]
    assert any(text.startswith("(pid=N) steps: 100%") and "3/3" in text for text in err), err
    assert "__magic_token__" not in "".join(err)


def test_begin_of_a_line_is_shown_in_time(home):
    """A progress bar ends its line when all is done; a driver sees it before."""
    driver = home.driver(HERE + """
    @ray.remote
    def f():
        while not os.path.exists(sys.argv[-1] if len(sys.argv) > 1 else os.environ["STOP"]):
            sys.stdout.write("10% ")
            sys.stdout.flush()
            time.sleep(0.02)
    ray.get(f.remote())
    """, env={"STOP": str(home.folder / "stop")})  # fmt: skip
    assert "10%" in line(driver)
    (home.folder / "stop").touch()
    driver.communicate(timeout=60)
    assert driver.returncode == 0


def test_two_nodes(home):
    """Lines of another node say so, also those of tasks that tasks started; a driver there sees its own node's without."""
    head, _ = two(home)
    program = """
    @ray.remote(resources={"b": 1}, num_cpus=0)
    def there(text):
        print(text)
        return ray.get(here.remote(text + " back"))
    @ray.remote
    def here(text):
        print(text)
    ray.get(there.remote("a"))
    """  # fmt: skip
    out, _ = run(home, AUTO + program)
    back = [text for text in out if text.endswith("a back")]
    assert "(there pid=N, ip=127.0.0.2) a" in out and len(back) == 1 and len(out) == 2, out
    out, _ = run(home, ON + program, "127.0.0.2", head["gcs_address"])
    assert "(there pid=N) a" in out and len(out) == 2, out


def test_drivers_see_their_own(home):
    """Two drivers of one cluster, and a detached actor that outlives its driver."""
    two(home)
    program = AUTO + """
    @ray.remote(num_cpus=0)
    def f(text):
        print(text)
    @ray.remote(num_cpus=0, resources={"b": 1}, lifetime="detached", name="d", namespace="n", get_if_exists=True)
    class D:
        def m(self, text):
            print(text)
    d = D.remote()
    ray.get(d.m.remote("first"))
    print("ready", flush=True)
    sys.stdin.readline()
    ray.get([f.remote(sys.argv[1]), d.m.remote("detached " + sys.argv[1])])
    """  # fmt: skip
    creator = home.driver(program, "one")
    first = [line(creator), line(creator)]
    other = home.driver(program, "two")
    assert line(other) == "ready"
    for driver in (other, creator):
        tell(driver)
    out, err = other.communicate(timeout=60)
    assert re.sub(r"pid=\d+", "pid=N", out).splitlines() == ["(f pid=N) two"], out + err
    out, err = creator.communicate(timeout=60)
    assert sorted(re.sub(r"pid=\d+", "pid=N", text) for text in (*first, *out.splitlines())) == [
        "(D pid=N, ip=127.0.0.2) detached one", "(D pid=N, ip=127.0.0.2) detached two", *2 * ["(D pid=N, ip=127.0.0.2) first"],
        "(f pid=N) one", "ready",
    ], out + err  # fmt: skip
    third = home.driver(program, "three")
    assert line(third) == "ready"
    tell(third)
    out, err = third.communicate(timeout=60)
    assert re.sub(r"pid=\d+", "pid=N", out).splitlines() == ["(f pid=N) three"], out + err


def test_much_output_of_another_node(home):
    """30 MB come whole and in order, and the daemons stay small; a driver that reads nothing holds up no task."""
    nodes = two(home)
    program = AUTO + """
    @ray.remote(num_cpus=0, resources={"b": 1})
    def f(n):
        for i in range(n):
            print(i, "x" * 92)
    ray.get(f.remote(int(sys.argv[1])))
    os.write(2, b"ended\\n")
    """  # fmt: skip
    driver = home.driver(program, 300_000)
    assert driver.stderr.readline() == "ended\n"  # nobody has read a byte of its stdout
    for node in nodes:
        with open(f"/proc/{node['pid']}/status") as f:
            rss = int(next(x for x in f if x.startswith("RssAnon")).split()[1])
        assert rss < 100_000, f"a daemon has {rss} kB"
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    lines = out.splitlines()
    assert [int(x.split(") ")[1].split()[0]) for x in lines] == list(range(300_000))
    assert all(x.startswith("(f pid=") and x.endswith("x" * 92) for x in lines)


def test_rotation(home):
    """Files are bounded while workers write on; what was cut off before it could be shown is told with its size."""
    head = home.head(env={"RAY_ROTATION_MAX_BYTES": "200000", "RAY_ROTATION_BACKUP_COUNT": "2"})
    program = AUTO + """
    @ray.remote
    def f():
        print("begin", os.getpid(), flush=True)
        for i in range(50_000):
            print(i, "y" * 90)
        sys.stdout.flush()
    ray.get(f.remote())
    """  # fmt: skip
    out, _ = run(home, program)
    logs = home.root / head["session_name"] / "logs"
    assert out[0] == "(f pid=N) begin N" or out[0].startswith("(f pid=N) begin"), out[:2]
    dropped = sum(int(m.group(1)) for m in (re.search(r"\[(\d+) bytes are not shown", x) for x in out) if m)
    shown = sum(len(x) + 1 - len("(f pid=N) ") for x in out if "not shown" not in x)
    whole = sum(len(f"{i} ") + 91 for i in range(50_000))
    assert whole <= dropped + shown <= whole + 200, (dropped, shown, whole)

    def bounded():
        sizes = {p.name: p.stat().st_blocks * 512 for p in logs.glob("worker-*.out*")}
        return max(sizes.values()) < 2_000_000 and len(sizes) > 1 and max(sizes.values())

    until(bounded, "files that are cut", 30)


def test_dead_node(home):
    """A driver's end does not wait for the output of a node that is dead."""
    import os
    import signal

    _, second = two(home)
    driver = home.driver(AUTO + """
    @ray.remote(num_cpus=0, resources={"b": 1})
    class A:
        def m(self):
            print("here")
    a = A.remote()
    ray.get(a.m.remote())
    print("got", flush=True)
    sys.stdin.readline()
    """)  # fmt: skip
    said = {line(driver), line(driver)}
    assert "got" in said and any("here" in text for text in said)
    os.kill(second["pid"], signal.SIGKILL)
    begun = time.monotonic()
    tell(driver)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 0, out + err
    assert time.monotonic() - begun < 30


def test_what_no_node_has(home):
    """Of tasks and actors that nothing can run a program is told, from any node, though it never waits for long."""
    two(home)
    driver = home.driver(AUTO + """
    @ray.remote(num_cpus=100)
    def f():
        pass
    @ray.remote(resources={"gold": 1})
    class A:
        pass
    @ray.remote(resources={"b": 1}, num_cpus=0)
    def there():
        return [f.options(num_cpus=0, resources={"b": 1000}).remote()]
    kept = A.remote(), f.remote(), ray.get(there.remote())
    while True:
        ray.wait([kept[1]], timeout=0.1)
    """)  # fmt: skip
    told = sorted(driver.stderr.readline() for _ in range(3))
    begin = "(ray) Warning: The following resource request cannot be scheduled right now: "
    for text, need in zip(told, ("{'CPU': 1.0, 'gold': 1.0}", "{'CPU': 100.0}", "{'b': 1000.0}")):
        assert text.startswith(begin + need + ", as no node of the cluster has that much ("), told
    driver.kill()
    driver.communicate()
