"""JupyterLab in the namespace: the notebooks of the image, run in its pod, and the way to it."""

import json
import re
import subprocess
import urllib.error
import urllib.request

import kube
import pytest
from kube import Failed, until

ONE = "import ray; ray.init(logging_level='error'); print(ray.get(ray.remote(lambda: 1).remote()))"


@pytest.fixture(scope="module")
def cluster(admin, space):
    kube.load(kube.NOTEBOOK_IMAGE, admin.env)
    space("apply", "-f", kube.NOTEBOOK)  # before the cluster: no order is asked for
    space("apply", "-f", kube.CLUSTER)
    space.ready(5)
    return space


def executed(space, name, seconds):
    """Runs a notebook in the pod; gives what its code cells show, a list for each."""
    run = ["jupyter", "nbconvert", "--log-level=ERROR", "--to=notebook", "--execute", "--stdout", "examples/" + name]
    text = space.run(space.head("notebook"), *run, timeout=seconds)
    return [cell["outputs"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def printed(outputs):
    return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")


def value(outputs, kind="text/plain"):
    found = [o["data"][kind] for o in outputs if kind in o.get("data", ())]
    return "".join(found[-1]) if found else None


def test_the_quick_start(cluster):
    pods = {p["metadata"]["name"] for p in cluster.pods()}
    outputs = executed(cluster, "quickstart.ipynb", 180)
    init, nodes, hops, actor, arrays, plot, end = outputs
    assert "Ray version" in value(init, "text/html")
    lines = [line.split() for line in printed(nodes).splitlines() if "waiting" not in line]
    assert {host for host, _ in lines} == pods
    assert sorted(float(cpus) for _, cpus in lines) == [0, 1, 1, 1, 1]
    assert [host for host, cpus in lines if float(cpus) == 0] == [cluster.head("notebook")]
    assert printed(hops) == "4 pods have worked\n"
    assert value(actor) == "45"
    assert value(arrays) == str([(100_000,)] * 4)
    assert value(plot, "image/png").startswith("iVBOR")  # PNG in base64
    assert printed(end) == "Success!\n"
    until(lambda: cluster.alive() == 4, "the notebook's node to leave", 30)


def test_the_address_from_the_log_opens_it_and_nothing_else_does(cluster):
    log = cluster("logs", "deployment/notebook")
    token = re.search(
        r"http://127\.0\.0\.1:8888/lab/tree/examples/quickstart\.ipynb\?token=([0-9a-f]{32,})", log
    ).group(1)
    forward = subprocess.Popen(
        cluster.command("port-forward", "service/notebook", ":8888"), stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(re.search(r"127\.0\.0\.1:(\d+) -> 8888", forward.stdout.readline()).group(1))

        def ask(path, *header):
            request = urllib.request.Request(
                "http://127.0.0.1:%d%s" % (port, path), headers=dict([header] if header else [])
            )
            try:
                with urllib.request.urlopen(request, timeout=20 * kube.SLOW) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as e:
                return e.code, ""

        for path in ("/api/kernels", "/api/contents", "/api/terminals"):
            assert ask(path)[0] == 403
            assert ask(path, "Authorization", "token " + "0" * len(token))[0] == 403
        status, text = ask("/api/contents/examples", "Authorization", "token " + token)
        assert status == 200
        names = {f["name"] for f in json.loads(text)["content"]}
        assert {"quickstart.ipynb", "example.py", "train.py", "train.ipynb"} <= names
        status, text = ask("/lab/tree/examples/quickstart.ipynb?token=" + token)
        assert status == 200 and "JupyterLab" in text
    finally:
        forward.terminate()
        forward.wait()


def test_commands_and_programs_in_its_terminal(cluster):
    pod = cluster.head("notebook")
    assert "4.0 CPU" in cluster.run(pod, "ray", "status")
    assert cluster.run(pod, "python", "-c", ONE) == "1\n"
    out = cluster.run(pod, "python", "examples/example.py", timeout=120)
    assert out.splitlines()[-1] == "Success!"
    cluster.run(pod, "bash", "-c", "touch work/mine examples/mine")


def test_nothing_is_left_of_a_kernel_that_was_killed(cluster):
    """Its node ends and leaves the cluster, and no process stays as a zombie."""
    pod = cluster.head("notebook")
    killed = ONE + "; import os; print(ray._init._private.pid, flush=True); os.kill(os.getpid(), 9)"
    out = cluster.run(pod, "bash", "-c", 'python -c "$0" || echo "status $?"', killed)
    one, daemon, status = out.split("\n", 2)
    assert (one, status) == ("1", "status 137\n")
    until(
        lambda: cluster.run(pod, "bash", "-c", f"test -e /proc/{daemon} && echo there || echo gone") == "gone\n",
        "its daemon to go",
        30,
    )
    until(lambda: cluster.alive() == 4, "its node to leave", 30)


def test_a_pod_that_knows_no_address_finds_the_service(cluster):
    cluster.visitor()
    assert cluster.run("visitor", "bash", "-c", "echo $RAY_ADDRESS") == "\n"
    assert cluster.run("visitor", "python", "-c", ONE) == "1\n"
    assert "4.0 CPU" in cluster.run("visitor", "ray", "status")
    until(lambda: cluster.alive() == 4, "the visitor's node to leave", 30)


def test_after_the_head_was_replaced(cluster):
    cluster("delete", "pod", cluster.head())
    pod = cluster.head("notebook")
    cluster("wait", "--for=condition=ready", "pod", "-l", "component=ray-head", "--timeout=60s", timeout=70)
    until(lambda: cluster.alive() == 4, "4 nodes", 90, cluster.story)
    assert cluster.run(pod, "python", "-c", ONE) == "1\n"


def test_without_a_cluster_it_says_what_to_do(admin, own_space):
    kube.load(kube.NOTEBOOK_IMAGE, admin.env)
    own_space("apply", "-f", kube.NOTEBOOK)
    own_space.ready(1)
    with pytest.raises(Failed, match="Failed to connect to Ray cluster at ray-head:6379: .*kubectl get pods"):
        own_space.run(own_space.head("notebook"), "python", "-c", ONE)
