"""`ray kube`, as a user with the rights of one namespace runs it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import kube
import pytest
from kube import is_ready, until
from test_outside import PROGRAM, check_hosts, needs_its_python

RAY = os.path.join(kube.TOP, "python", "ray", "_bin", "ray")
QUICK = 10  # seconds within which a cause that is known is told


class Done:
    """What a command did."""

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds

    def __repr__(self):
        return "exit status %d after %.1f s\n%s\n%s" % (self.status, self.seconds, self.out, self.err)


def environment(kubeconfig, home):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "KUBE"))}
    env.update(HOME=str(home))
    if kubeconfig:
        env["KUBECONFIG"] = kubeconfig
    return env


@pytest.fixture
def ray(space, tmp_path):
    """Runs `ray kube …` as the student of a namespace."""

    def run(*args, stdin="", kubeconfig=space.kubeconfig, timeout=90):
        start = time.monotonic()
        done = subprocess.run(
            [RAY, "kube", *args], env=environment(kubeconfig, tmp_path), cwd=str(tmp_path), text=True, input=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * kube.SLOW,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    return run


@contextmanager
def beside(kubeconfig, home, *args):
    """A `ray kube …` that goes on until the block ends; then it is interrupted."""
    with open(os.path.join(str(home), "beside.txt"), "w+", encoding="utf-8") as out:
        child = subprocess.Popen(
            [RAY, "kube", *args], env=environment(kubeconfig, home), cwd=str(home), stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip

        def text():
            with open(out.name, encoding="utf-8") as f:
                return f.read()

        try:
            yield child, text
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise


def ok(done):
    assert done.status == 0, done
    return done


@pytest.fixture
def cluster(ray):
    """A small cluster, which is there between tests, as its making is no part of them."""
    return ok(ray("up", "--workers", "1"))


def namespace_of(space):
    return space.json("get", "serviceaccount", "default")["metadata"]["namespace"]


def one_sentence(done):
    """A failure told in one line of stderr; gives it."""
    assert done.status == 1, done
    assert done.err.count("\n") == 1 and done.err.startswith("Error: "), done
    assert done.seconds < QUICK * kube.SLOW, done
    return done.err


# --- the way through ---


def test_up_run_status_logs_down(ray, space, tmp_path):
    ray("down")
    up = ok(ray("up", "--workers", "3"))
    print(up)
    assert re.search(r"service/ray-head created\n", up.out)
    assert re.search(r"deployment/ray-worker created: 3 x gray:local", up.out)
    assert "4 of 4 pods are ready" in up.out
    assert [is_ready(p) for p in space.pods()] == [True] * 4

    run = ok(ray("run", kube.EXAMPLE))
    print(run)
    names = [p["metadata"]["name"] for p in space.pods()]
    assert run.out.splitlines()[-1] == "Success!"
    assert set(re.findall(r"\('([^']+)', '([^']+)'\)", run.out)) == {(a, b) for a in names for b in names}

    status = ok(ray("status"))
    print(status)
    for name in names:
        assert re.search(r"^%s +ready +0 " % name, status.out, re.M), status
    assert "0.0/4.0 CPU" in status.out and "6379 (redis-primary)" in status.out

    logs = ok(ray("logs", "--tail", "3"))
    for name in names:
        assert 1 <= logs.out.count("[%s] " % name) <= 3, logs

    down = ok(ray("down"))
    print(down)
    assert "All is gone" in down.out
    assert not space.json("get", "pods,deployments,services,replicasets", "-l", "app=ray")["items"]
    assert 'there is no cluster "ray"' in one_sentence(ray("down"))


def test_up_again_changes_only_what_is_asked(ray, space, cluster):
    before = {p["metadata"]["uid"] for p in space.pods()}
    again = ok(ray("up", "--workers", "1"))
    assert again.out.count("unchanged") == 3, again
    more = ok(ray("up", "--workers", "2"))
    assert "deployment/ray-head unchanged" in more.out and "pods 1 -> 2" in more.out
    assert before < {p["metadata"]["uid"] for p in space.pods()}
    less = ok(ray("up", "--workers", "0"))
    assert len(space.pods()) == 1 and "1 of 1 pods are ready" in less.out
    sized = ok(ray("up", "--workers", "0", "--cpus", "200m", "--memory", "300Mi"))
    assert "cpu 100m, memory 512Mi) -> gray:local (cpu 200m, memory 300Mi)" in sized.out, sized
    assert len(space.pods()) == 1
    assert space.pods()[0]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m", "memory": "300Mi"}


def test_what_dry_run_prints_is_what_up_applies(ray, space, cluster):
    printed = ok(ray("up", "--workers", "1", "--dry-run", "-o", "yaml", kubeconfig="/nowhere")).out
    again = space(
        "apply", "--server-side", "--field-manager=ray-kube", "--dry-run=server", "-o", "json", "-f", "-", stdin=printed
    )
    documents = json.loads(again)["items"]
    assert len(documents) == 3
    for document in documents:
        there = space.json("get", document["kind"], document["metadata"]["name"])
        assert there["spec"] == document["spec"] and there["metadata"]["labels"] == document["metadata"]["labels"]


def test_two_clusters_of_a_namespace(ray, space, cluster, tmp_path):
    ok(ray("up", "--name", "two", "--workers", "2"))
    count = tmp_path / "count.py"
    count.write_text(COUNT)
    assert "nodes 3" in ok(ray("run", "--name", "two", str(count), "3")).out
    assert "nodes 2" in ok(ray("run", str(count), "2")).out
    assert ok(ray("down", "--name", "two")).out.count("deleted") == 3
    assert len(space.pods()) == 2


COUNT = """
import sys, time
import ray
ray.init(logging_level="error")
end = time.monotonic() + 20
while len(ray.nodes()) != int(sys.argv[1]) and time.monotonic() < end:
    time.sleep(0.1)
print("nodes", len(ray.nodes()))
"""


# --- run ---


def test_run_gives_status_arguments_and_streams(ray, cluster, tmp_path):
    program = tmp_path / "fails.py"
    program.write_text(
        "import sys\nprint(sys.argv[1:], sys.stdin.read())\nprint('why', file=sys.stderr)\nsys.exit(7)\n"
    )
    done = ray("run", str(program), "-n", "--name", "a b", stdin="typed")
    assert (done.status, done.out, done.err) == (7, "['-n', '--name', 'a b'] typed\n", "why\n")
    program.write_text("import os\nos.kill(os.getpid(), 9)\n")
    assert ray("run", str(program)).status == 137
    program.write_text("print('x' * 20_000_000)\n")
    assert len(ok(ray("run", str(program))).out) == 20_000_001
    assert "can't read the program" in one_sentence(ray("run", "no-such.py"))


def test_run_sends_a_folder_to_all_nodes(ray, cluster, tmp_path):
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "helper.py").write_text("def where():\n    import platform\n    return platform.node()\n")
    (folder / "data.bin").write_bytes(os.urandom(3_000_000))
    (folder / "sub" / "main.py").write_text(
        "import os, sys, ray\nsys.path.insert(0, '.')\nray.init(logging_level='error')\n"
        "@ray.remote\ndef f():\n    import helper\n    return helper.where()\n"
        "print(os.path.getsize('data.bin'), ray.get(f.remote()))\n"
    )
    for script in ("sub/main.py", str(folder / "sub" / "main.py")):
        assert re.match(r"3000000 ray-(head|worker)-", ok(ray("run", "--working-dir", str(folder), script)).out)
    assert "there is no program" in one_sentence(ray("run", "--working-dir", str(folder), "other.py"))


WAITS = """
import os, sys, time
try:
    print("pid", os.getpid(), os.getcwd(), flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(3)
"""


def test_ctrl_c_reaches_the_program_and_no_end_leaves_it_behind(ray, space, cluster, tmp_path):
    program = tmp_path / "waits.py"
    program.write_text(WAITS)

    def started(text):
        until(lambda: re.search(r"pid .*\n", text()), "the program to start", 30, text)
        return text().split()[1], text().split()[2]

    def gone(pid, folder):
        test = "test ! -e /proc/%s -a ! -e %s && echo gone" % (pid, folder)
        until(
            lambda: "gone" in space.run(space.head("ray-head"), "sh", "-c", test, check=False),
            "program and folder to be gone",
            30,
        )

    with beside(space.kubeconfig, tmp_path, "run", str(program)) as (child, text):
        pid, folder = started(text)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 3
        assert "interrupted" in text()
    gone(pid, folder)
    with beside(space.kubeconfig, tmp_path, "run", str(program)) as (child, text):
        pid, folder = started(text)
        child.kill()
        child.wait()
    gone(pid, folder)


# --- logs, connect ---


def test_logs_follow_pods_that_come_later(ray, space, cluster, tmp_path):
    with beside(space.kubeconfig, tmp_path, "logs", "-f") as (child, text):
        old = space.head("ray-worker")
        until(lambda: "[%s] " % old in text(), "the log of the old worker", 20, text)
        ok(ray("up", "--workers", "2"))
        (new,) = [p["metadata"]["name"] for p in space.pods("ray-worker") if p["metadata"]["name"] != old]
        until(lambda: "[%s] " % new in text(), "the log of the new worker", 20, text)
        assert child.poll() is None
    assert child.returncode == 130


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def healthy(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(5)
            s.sendall(b"GET /api/gcs_healthz HTTP/1.1\r\nHost: head\r\nConnection: close\r\n\r\n")
            return b" 200 " in s.recv(4096).split(b"\r\n")[0]
    except OSError:
        return False


def test_connect_leads_to_the_head_also_after_it_was_replaced(ray, space, cluster, tmp_path):
    with beside(space.kubeconfig, tmp_path, "connect", "--port", "0", "--remote-port", "8265") as (child, text):
        until(lambda: "Ctrl-C" in text(), "the port", 20, text)
        port = int(re.search(r"ray://127.0.0.1:(\d+)", text()).group(1))
        file = re.search(r"^  \. (\S+)$", text(), re.M).group(1)
        assert os.stat(file).st_mode & 0o777 == 0o600
        before = read(file)
        assert "export RAY_ADDRESS='ray://127.0.0.1:%d'\n" % port in before
        token = re.search(r"RAY_AUTH_TOKEN='([^']{16,})'", before).group(1)
        assert token not in text()
        assert healthy(port)
        head = space.head("ray-head")
        space("delete", "pod", head, "--wait=false")
        until(lambda: "Connected with head" in text(), "the new head", 60, text)
        assert head not in text().rsplit("Connected with head", 1)[1]
        until(lambda: healthy(port), "the port to lead to the new head", 20, text)
        assert read(file) != before  # a new cluster has a new credential
    assert child.returncode == 0
    assert not os.path.exists(file)
    assert not healthy(port)


def test_connect_runs_a_command(ray, cluster):
    code = "import os, sys; print(os.environ['RAY_ADDRESS'], len(os.environ['RAY_AUTH_TOKEN']) > 15); sys.exit(5)"
    done = ray("connect", "--", sys.executable, "-c", code)
    assert done.status == 5, done
    assert re.fullmatch(r"ray://127\.0\.0\.1:\d+ True\n", done.out), done
    assert "can't start the command" in ray("connect", "--", "no-such-command").err


def test_a_program_works_through_connect(ray, space, cluster, tmp_path):
    needs_its_python(space)
    until(lambda: space.alive() == len(space.pods()), "all nodes: the head may be a new one", 60, space.story)
    done = ok(ray("connect", "--", sys.executable, "-c", PROGRAM))
    check_hosts(space, done.out)
    with beside(space.kubeconfig, tmp_path, "connect", "--port", "0") as (_, text):
        until(lambda: "Ctrl-C" in text(), "the port", 20, text)
        file = re.search(r"^  \. (\S+)$", text(), re.M).group(1)
        command = ['. %s && exec %s -c "$1"' % (file, sys.executable), "sh", PROGRAM]
        env = environment(None, tmp_path)
        check_hosts(space, subprocess.check_output(["sh", "-c", *command], env=env, text=True, timeout=90 * kube.SLOW))


# --- sentences ---


def test_a_quota_that_is_used_up(own_space, admin, ray):
    admin("-n", namespace_of(own_space), "create", "quota", "small", "--hard=pods=2")
    text = one_sentence(ray("up", kubeconfig=own_space.kubeconfig))
    print(text)
    assert 'quota "small"' in text and "pods=2" in text and "--workers" in text
    assert "quota" in one_sentence(ray("up", kubeconfig=own_space.kubeconfig))
    admin("-n", namespace_of(own_space), "patch", "quota", "small", "-p", '{"spec": {"hard": {"pods": "3"}}}')
    assert "tried again" in ray("up", kubeconfig=own_space.kubeconfig).out
    admin("-n", namespace_of(own_space), "patch", "quota", "small", "-p", '{"spec": {"hard": {"pods": "4"}}}')
    assert "4 of 4 pods are ready" in ok(ray("up", kubeconfig=own_space.kubeconfig)).out


def test_an_image_that_cannot_be_pulled(own_space, ray):
    text = one_sentence(ray("up", "--image", "localhost:1/none:1", kubeconfig=own_space.kubeconfig))
    print(text)
    assert 'image "localhost:1/none:1" can\'t be pulled' in text and "refused" in text and "--image" in text
    assert "can't be pulled" in ok(ray("status", kubeconfig=own_space.kubeconfig)).out
    text = one_sentence(ray("run", kube.EXAMPLE, kubeconfig=own_space.kubeconfig))
    assert "is not ready: image" in text
    logs = ok(ray("logs", kubeconfig=own_space.kubeconfig)).out
    assert logs.count("] has no log yet: ") == 4 and "] has no log yet: image" in logs, "the head's and three workers'"


def test_more_cpus_than_a_node_has(own_space, ray):
    text = one_sentence(ray("up", "--cpus", "900", kubeconfig=own_space.kubeconfig))
    print(text)
    assert "no node takes pod" in text and "Insufficient cpu" in text and "cpu 900" in text and "--cpus" in text
    ok(ray("up", "--workers", "0", kubeconfig=own_space.kubeconfig))


def test_pods_that_do_not_stay_up(own_space, ray):
    text = ok(ray("up", "--workers", "0", "--dry-run")).out
    own_space.apply(text.replace("exec ray start", "echo the reason >&2; exit 9; ray start"))

    def restarts():
        return [c["restartCount"] for p in own_space.pods("ray-head") for c in p["status"].get("containerStatuses", [])]

    until(lambda: restarts() and restarts()[0] > 1, "the head to have been started three times", 60)

    def status():
        return ok(ray("status", kubeconfig=own_space.kubeconfig)).out

    until(lambda: "ended with status 9: the reason" in status(), "the reason", 30, status)


def account(admin, space, folder, name, role):
    """A kubeconfig of a ServiceAccount that has a role, or none, in a namespace."""
    namespace = namespace_of(space)
    admin("-n", namespace, "create", "serviceaccount", name)
    if role:
        admin(
            "-n",
            namespace,
            "create",
            "rolebinding",
            name,
            "--clusterrole=" + role,
            "--serviceaccount=%s:%s" % (namespace, name),
        )
    token = admin("-n", namespace, "create", "token", name).strip()
    return with_token(space, folder, name, token)


def with_token(space, folder, name, token, server=None):
    config = space.json("config", "view", "--raw")
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    if server:
        config["clusters"][0]["cluster"]["server"] = server
    path = folder / (name + ".json")  # JSON is YAML
    path.write_text(json.dumps(config))
    return str(path)


def test_rights_that_are_missing(own_space, admin, ray, tmp_path):
    viewer = account(admin, own_space, tmp_path, "viewer", "view")
    text = one_sentence(ray("up", kubeconfig=viewer))
    print(text)
    assert (
        re.search(r'user "system:serviceaccount:[^"]+:viewer" may not patch services in namespace', text)
        and "edit" in text
    )
    assert "may not list services" in one_sentence(
        ray("status", kubeconfig=account(admin, own_space, tmp_path, "nobody", None))
    )
    ok(ray("up", "--workers", "0", kubeconfig=own_space.kubeconfig))
    assert "may not get pods/exec" in one_sentence(ray("run", kube.EXAMPLE, kubeconfig=viewer))
    assert "may not get pods/exec" in one_sentence(ray("connect", kubeconfig=viewer))
    assert "may not delete deployments.apps" in ray("down", kubeconfig=viewer).err


def test_who_and_where_is_wrong(space, admin, ray, tmp_path):
    text = one_sentence(ray("up", "-n", "kube-system"))
    assert (
        'may not get services in namespace "kube-system"' in text
        or 'may not patch services in namespace "kube-system"' in text
    )
    text = one_sentence(ray("up", "-n", "no-such", kubeconfig=admin.kubeconfig))
    assert 'there is no namespace "no-such"' in text
    assert 'there is no namespace "no-such"' in one_sentence(
        ray("status", "-n", "no-such", kubeconfig=admin.kubeconfig)
    )
    assert "no Kubernetes cluster is configured" in one_sentence(ray("status", kubeconfig=""))
    text = one_sentence(ray("status", kubeconfig=with_token(space, tmp_path, "expired", "no.such.token")))
    assert "does not accept the credentials" in text and "log in again" in text
    assert "connection refused" in one_sentence(
        ray("status", kubeconfig=with_token(space, tmp_path, "down", "x", "https://127.0.0.1:1"))
    )
    assert "has no context" in one_sentence(ray("status", "--context", "other"))


def test_in_a_pod_with_no_kubeconfig(own_space, admin, ray):
    """As in a notebook: the pod's own ServiceAccount, in its own namespace."""
    namespace = namespace_of(own_space)
    admin("-n", namespace, "create", "serviceaccount", "writer")
    admin(
        "-n",
        namespace,
        "create",
        "rolebinding",
        "writer",
        "--clusterrole=edit",
        "--serviceaccount=%s:writer" % namespace,
    )
    pod = own_space.visitor("notebook", account="writer")
    out = own_space.run(pod, "ray", "kube", "up", "--workers", "1")
    assert "2 of 2 pods are ready" in out and 'in namespace "%s"' % namespace in out
    assert "All is gone" in own_space.run(pod, "ray", "kube", "down")
