"""`ray logs`, ``list_logs`` and ``get_log`` on two daemons that share no folder: who has a file sends it."""

import json
import re
import subprocess
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from machines import until

PROGRAM = """
    import os, sys, json, ray
    from ray.util.state import get_log, list_logs
    ray.init("auto", logging_level="error", log_to_driver=False)

    @ray.remote(resources={"b": 1})
    def task():
        print("one\\ntwo\\nthree")
        print("bad", file=sys.stderr)
        return os.getpid()

    @ray.remote(resources={"b": 1})
    class A:
        def say(self, text):
            print(text)
            return os.getpid()
"""


@pytest.fixture
def two(homes):
    """A head and, in another user's folders, a node with the resource b."""
    first, second = homes("a"), homes("b")
    head = first.head(f"--temp-dir={first.root}")
    token = first.ray("get-auth-token").stdout.split()[-1]
    node = second.node(
        head["gcs_address"], f"--temp-dir={second.root}", "--resources", json.dumps({"b": 100}), ip="127.0.0.2",
        env={"RAY_AUTH_TOKEN": token},
    )  # fmt: skip
    return first, head, node


def printed(home, code):
    return json.loads(home.python(PROGRAM + code).splitlines()[-1])


def test_from_the_sdk(two):
    """A file is listed and read by its name, its task, its actor, its pid; of stdout and stderr; all of it and its tail."""
    home, head, node = two
    got = printed(home, """
    ref = task.remote()
    pid = ray.get(ref)
    again = task.remote()
    ray.get(again)
    again = again.task_id().hex()
    a = A.remote()
    ray.get(a.say.remote("日" * 100000))
    nodes = {n["NodeID"]: n for n in ray.nodes()}
    b = next(i for i, n in nodes.items() if "b" in n["Resources"])
    h = next(i for i in nodes if i != b)
    tid = ref.task_id().hex()
    name = next(f for f in list_logs(node_id=b)["worker_out"] if f.endswith(f"-{pid}.out"))

    def refused(f):
        try:
            return str(list(f()))
        except Exception as e:
            return f"{type(e).__name__}: {e}"

    print(json.dumps({
        "task": "".join(get_log(task_id=tid)), "tail": "".join(get_log(task_id=tid, tail=2)),
        "err": "".join(get_log(task_id=tid, suffix="err")), "pid": "".join(get_log(pid=pid, node_ip="127.0.0.2")),
        "name": "".join(get_log(filename=name, node_id=b)), "bytes": b"".join(get_log(filename=name, node_id=b, encoding=None)).decode(),
        "actor": "".join(get_log(actor_id=a._actor_id.hex())) == ":actor_name:A\\n" + "日" * 100000 + "\\n",
        "here": sum(name in names for names in list_logs(node_id=h).values()),
        "glob": list_logs(node_id=b, glob_filter="raylet*"),
        "elsewhere": refused(lambda: get_log(filename=name, node_id=h)),
        "up": refused(lambda: get_log(filename="../sockets/raylet", node_id=b)),
        "root": refused(lambda: get_log(filename="/etc/passwd", node_id=b)),
        "other": "".join(get_log(task_id=again)), "all": "".join(get_log(pid=pid, node_ip="127.0.0.2", tail=1)),
        "method": refused(lambda: get_log(task_id=a.say.remote("x").task_id().hex())),
        "attempt": refused(lambda: get_log(task_id=tid, attempt_number=4)),
        "nothing": refused(lambda: get_log()), "node": refused(lambda: list_logs(node_id="ff")),
    }))
    """)  # fmt: skip
    text = "one\ntwo\nthree\n"
    assert got["task"] == got["other"] == text and got["all"] == "three\n"
    whole = re.sub(":task_id:[0-9a-f]{16}\n", ":task_id:N\n", got["pid"])
    assert whole in (f":task_name:task\n:task_id:N\n{text}", f":task_name:task\n:task_id:N\n{text}:task_id:N\n{text}")
    assert got["pid"] == got["name"] == got["bytes"]
    assert got["tail"] == "two\nthree\n" and got["err"].endswith("bad\n") and got["actor"] is True
    assert got["here"] == 0 and list(got["glob"]) == ["raylet"] and len(got["glob"]["raylet"]) == 2
    for key, said in (
        ("elsewhere", "no such file"), ("up", "escapes"), ("root", "escapes"), ("method", "ray logs actor --id"), ("attempt", "no such attempt"),
        ("nothing", "node_id or node_ip"), ("node", "node id ff"),
    ):  # fmt: skip
        assert said in got[key], (key, got[key])


def test_of_a_task(two):
    """Each task's log is what it printed: one of many, by its children, unended, much, nothing; its attempts; the dead."""
    home, head, node = two
    driver = home.driver(PROGRAM + """
    import subprocess, time

    def alone(f):
        return ray.remote(resources={"b": 100})(f)  # one after the other

    @alone
    def f(i):
        if i % 2 == 0:
            print("out", i)
            print("err", i, file=sys.stderr)

    @alone
    def child(i):
        subprocess.run(f"echo child {i}", shell=True, check=True)

    @alone
    def unended():
        print("no", "end", end="")
        time.sleep(0.01)

    @alone
    def much():
        for i in range(60000):
            print(i, "x" * 90)

    @ray.remote(max_retries=1, retry_exceptions=True, resources={"b": 100})
    def again():
        print("here")
        raise ValueError

    @ray.remote(max_retries=0, resources={"b": 100})
    def dies():
        print("last words", end="", flush=True)
        os.kill(os.getpid(), 9)

    def log(ref, **more):
        return "".join(get_log(task_id=ref.task_id().hex(), **more))

    first = f.remote(0)
    ray.get(first)
    fs = [f.remote(i) for i in range(1, 60)]
    children = [child.remote(i) for i in range(3)]
    u, m = unended.remote(), much.remote()
    ray.get([*fs, *children, u, m])
    after = [f.remote(60), child.remote(3)]
    ray.get(after)
    a, d = again.remote(), dies.remote()
    for ref in (a, d):
        try:
            ray.get(ref)
        except Exception:
            pass
    text = "".join(f"{i} {'x' * 90}\\n" for i in range(60000))
    print(json.dumps([
        [[log(r), log(r, suffix="err")] for r in [first, *fs, after[0]]], [log(r) for r in [*children, after[1]]], log(u),
        [log(m) == text, log(m, tail=50000) == text[text.index("\\n10000 ") + 1:], log(m, tail=2)],
        [log(a), log(a, attempt_number=1)], log(d), m.task_id().hex(),
    ]), flush=True)
    sys.stdin.readline()
    """)  # fmt: skip
    fs, children, unended, much, again, dead, task = json.loads(driver.stdout.readline())
    assert fs == [[f"out {i}\n", f"err {i}\n"] if i % 2 == 0 else ["", ""] for i in range(61)]
    assert children == [f"child {i}\n" for i in range(4)]
    assert unended.rstrip("\n") == "no end" and dead.rstrip("\n") == "last words"
    last = "".join(f"{i} {'x' * 90}\n" for i in (59998, 59999))
    assert much == [True, True, last]
    assert again == ["here\n", "here\n"]
    assert home.ray("logs", "task", "--id", task, "--tail=2").stdout == last
    assert home.ray("logs", "task", "--id", task, "--tail=2", "--err").stdout == ""
    driver.stdin.close()
    until(lambda: driver.poll() is not None, "the driver's end")


def test_of_an_actors_task(two):
    """Calls of an actor are told apart, also while they run at once, if the actor has asked for it; else one is told so."""
    home, _, _ = two
    got = printed(home, """
    import asyncio
    apart = {"env_vars": {"RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "1"}}

    @ray.remote(num_cpus=0, resources={"b": 1}, max_concurrency=2)
    class B:
        def __init__(self):
            self.turn = asyncio.Event()

        async def say(self, text):
            for _ in range(3):
                print(text)
                self.turn.set()
                self.turn = asyncio.Event()
                try:
                    await asyncio.wait_for(self.turn.wait(), 0.1)
                except asyncio.TimeoutError:
                    pass

    def log(ref):
        try:
            return "".join(get_log(task_id=ref.task_id().hex()))
        except Exception as e:
            return f"{type(e).__name__}: {e}"

    told, plain, quiet = [A.options(num_cpus=0, runtime_env=env).remote() for env in (apart, None, apart)]
    b = B.options(runtime_env=apart).remote()
    refs = [told.say.remote("one"), told.say.remote("two"), plain.say.remote("three"), quiet.__ray_ready__.remote(), b.say.remote("x"), b.say.remote("y")]
    ray.get(refs)
    print(json.dumps([log(r) for r in refs]))
    """)  # fmt: skip
    assert got[:2] == ["one\n", "two\n"] and got[3:] == ["", "x\n" * 3, "y\n" * 3]
    assert "please query actor log" in got[2] and "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING" in got[2]


def test_follow_in_the_sdk(two):
    """What an actor prints comes as it is printed, and nothing of what was there before the tail."""
    home, _, _ = two
    got = printed(
        home,
        """
    a = A.remote()
    ray.get(a.say.remote("old"))
    follow = get_log(actor_id=a._actor_id.hex(), follow=True, tail=1, _interval=0.01)
    seen = [next(follow)]
    for text in ("one", "two"):
        ray.get(a.say.remote(text))
        seen.append(next(follow))
    print(json.dumps(seen))
    """,
    )
    assert got == ["old\n", "one\n", "two\n"]


def test_command(two):
    """The command lists, prints and follows what another machine has, and refuses what is no log."""
    home, head, node = two
    driver = home.driver(
        PROGRAM
        + """
    a = A.remote()
    pid = ray.get(a.say.remote("hello"))
    print(json.dumps([a._actor_id.hex(), pid]), flush=True)
    for text in sys.stdin:
        ray.get(a.say.remote(text.strip()))
    """
    )
    actor, pid = json.loads(driver.stdout.readline())
    there = f"--node-id={node['node_id']}"
    assert "raylet:\n- raylet.err\n- raylet.out\n" in home.ray("logs").stdout
    assert f"-{pid}.out" in home.ray("logs", "cluster", "worker*", "--node-ip=127.0.0.2").stdout
    assert f"-{pid}.out" in home.ray("logs", "-ip", "127.0.0.2", "worker*").stdout
    assert f"-{pid}.out" in home.ray("logs", f"-id={node['node_id']}").stdout
    assert f"-{pid}.out" not in home.ray("logs", "*").stdout
    for args in (
        ["actor", "--id", actor],
        ["actor", "-a", actor],
        ["worker", f"--pid={pid}", there],
        ["actor", f"--pid={pid}", there],
    ):
        assert home.ray("logs", *args).stdout == ":actor_name:A\nhello\n"
    assert home.ray("logs", "actor", "--id", actor, "--tail=1").stdout == "hello\n"
    assert home.ray("logs", "actor", "--id", actor, "--err").stdout == ":actor_name:A\n"
    for args in (
        ["../sockets/raylet"],
        ["nothing.out"],
        ["actor", "--id", "0" * 32],
        ["worker"],
        ["job", "--id=x"],
        ["a*", "b"],
    ):
        assert home.ray("logs", *args, check=False).returncode != 0, args
    follow = subprocess.Popen(
        [home.binary, "logs", "actor", "--id", actor, "--follow", "--tail=1", "--interval=0.01"],
        env=home.env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert follow.stdout.readline() == "hello\n"
        driver.stdin.write("more\n")
        driver.stdin.flush()
        assert follow.stdout.readline() == "more\n"
        follow.send_signal(2)
        assert follow.wait(20) == 0
    finally:
        follow.kill()
        follow.wait()
        follow.stdout.close()
    driver.stdin.close()
    until(lambda: driver.poll() is not None, "the driver's end")
    assert driver.returncode == 0


def test_over_http(homes):
    """The dashboard's routes: who may ask, what is refused with which status, a file, a stream, and the SDK at its URL."""
    home = homes("a")
    head = home.head("--include-dashboard=true", "--dashboard-port=0", "--dashboard-host=0.0.0.0")
    assert head["dashboard_url"].startswith("127.0.0.1:"), "an address that a browser can be given"
    url = f"http://{head['dashboard_url']}"
    token = home.ray("get-auth-token").stdout.split()[-1]

    def ask(path, token=token):
        request = Request(url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urlopen(request, timeout=60) as reply:
                return reply.status, reply.read().decode(), reply.headers
        except HTTPError as e:
            return e.code, e.read().decode(), e.headers

    code = """
    import json, sys, ray
    from ray.util.state import get_log, list_logs
    ray.init("auto", logging_level="error", log_to_driver=False)

    @ray.remote
    class A:
        def say(self, text):
            print(text)

    a = A.remote()
    ray.get(a.say.remote("\\x1b[31mold\\x1b[0m"))
    actor, url = a._actor_id.hex(), sys.argv[1]
    follow = get_log(url, actor_id=actor, follow=True, tail=1, _interval=0.01)
    seen = [next(follow)]
    ray.get(a.say.remote("new"))
    seen.append(next(follow))
    follow.close()
    seen += ["".join(get_log(url, actor_id=actor, tail=2, filter_ansi_code=True)), list(list_logs(url, node_ip="127.0.0.1", glob_filter="ray*"))]
    print(json.dumps([actor, seen, ray.nodes()[0]["NodeManagerPort"]]), flush=True)
    sys.stdin.readline()
    """
    driver = home.driver(code, url)
    actor, seen, port = json.loads(driver.stdout.readline())
    assert seen == ["\x1b[31mold\x1b[0m\n", "new\n", "old\nnew\n", ["raylet"]]
    status, text, headers = ask(f"/api/v0/logs/file?actor_id={actor}&lines=1&download_filename=a%22%0Ab")
    assert (status, text) == (200, "new\n") and headers["Content-Disposition"] == 'attachment; filename="a__b"'
    assert headers["Content-Type"].startswith("text/plain")
    here = f"node_id={head['node_id']}"
    for path, want in (
        (f"/api/v0/logs?{here}", 200),
        ("/api/v0/logs", 400),
        ("/api/v0/logs?node_ip=127.0.0.9", 404),
        ("/api/v0/logs?node_id=ff", 500),
        (f"/api/v0/logs/other?actor_id={actor}", 404),
        (f"/api/v0/logs/file?{here}&filename=..%2Fhead.db", 500),
        (f"/api/v0/logs/file?{here}&filename=%2Fetc%2Fpasswd", 500),
        (f"/api/v0/logs/file?{here}&filename=raylet.out&lines=x", 500),
        (f"/api/v0/logs/file?{here}&filename=gcs_server.out", 200),
        (f"/api/v0/logs/file?{here}&pid=1%2F..", 500),
        (f"/api/v0/logs/file?actor_id={actor}&suffix=..", 500),
    ):
        status, text, _ = ask(path)
        assert status == want, (path, status, text)
    for path in (f"/api/v0/logs?{here}", f"/api/v0/logs/file?{here}&filename=raylet.out"):
        assert ask(path, token=None)[0] == 401 and ask(path, token="0" * len(token))[0] == 403
    # The daemons' own routes are for daemons.
    with pytest.raises(HTTPError) as refused:
        node = f"http://{head['node_ip']}:{port}/logs/file?name=raylet.out"
        urlopen(Request(node, headers={"Authorization": f"Bearer {token}"}), timeout=60)
    assert refused.value.code == 403
    driver.stdin.close()
    until(lambda: driver.poll() is not None, "the driver's end")
