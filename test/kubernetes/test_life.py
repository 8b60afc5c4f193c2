"""Pods come and go: the head, workers, and all at once."""

import json
import re
import subprocess
import time

import kube
import pytest
from kube import Failed, until

SUM = """
import ray, time
ray.init(logging_level="error")

@ray.remote(max_retries=-1)
def one(i):
    time.sleep(0.05)
    return i

refs = [one.remote(i) for i in range(600)]
print("begun", flush=True)
print("sum", sum(ray.get(refs)), flush=True)
"""

WAIT = """
import ray, time
ray.init(logging_level="error")

@ray.remote
def nap():
    time.sleep(600)

print("begun", flush=True)
ray.get(nap.remote())
"""


KILL_DAEMON = """
import json, os, signal, glob
(path,) = glob.glob("/tmp/ray/session_latest/nodes/*.json")
os.kill(json.load(open(path))["pid"], signal.SIGKILL)
"""


END_NODE = """
import os, signal, sys, time, ray
ray.init(logging_level="error", log_to_driver=False)

@ray.remote(max_retries=0, resources={"node:" + sys.argv[1]: 0.01})
def end():
    os.kill(int(os.environ["RAY_RAYLET_PID"]), signal.SIGKILL)

try:
    ray.get(end.remote())
except ray.exceptions.RayError as e:
    print("%s: %s" % (type(e).__name__, e))
"""


@pytest.fixture(scope="module")
def cluster(space):
    space("apply", "-f", kube.CLUSTER)
    space.ready(4)
    return space


class Driver:
    """A program that runs in a pod while the test goes on."""

    def __init__(self, cluster, pod, text):
        command = cluster.command("exec", pod, "--", "python", "-c", text)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout.readline() == "begun\n"

    def end(self, seconds):
        try:
            return self.process.communicate(timeout=seconds * kube.SLOW)[0]
        finally:
            self.process.kill()
            self.process.wait()

    def result(self, seconds):
        """What the program says at its end, without what the cluster says of attempts that are made again."""
        said = self.end(seconds)
        return re.sub(
            r"^\(ray\) (Task one failed\. There are infinite retries|\d+ further attempts) .*\n", "", said, flags=re.M
        ).strip()


def test_probes_and_health_check(cluster):
    head, worker = cluster.head(), cluster.head("ray-worker")
    ask = "wget --tries 1 -T 5 -q -O- http://localhost:%s"
    for pod in (head, worker):
        assert "success" in cluster.run(pod, "bash", "-c", ask % "52365/api/local_raylet_healthz")
        cluster.run(pod, "bash", "-c", ask % "52365/api/healthz")
        cluster.run(pod, "bash", "-c", "ray health-check --address $RAY_HEAD_SERVICE_HOST:6379")
    assert "success" in cluster.run(head, "bash", "-c", ask % "8265/api/gcs_healthz")
    with pytest.raises(Failed):
        cluster.run(worker, "ray", "health-check", "--address", "127.0.0.1:6379")


def test_a_worker_s_pod_is_deleted_under_a_program(cluster):
    driver = Driver(cluster, cluster.head(), SUM)
    cluster("delete", "pod", cluster.head("ray-worker"), "--wait=false")
    assert driver.result(90) == "sum %d" % sum(range(600))
    cluster.ready(4)
    until(lambda: cluster.alive() == 4, "4 nodes", 30)


def test_a_worker_s_pod_is_killed_under_a_program(cluster):
    driver = Driver(cluster, cluster.head(), SUM)
    cluster("delete", "pod", cluster.head("ray-worker"), "--wait=false", "--grace-period=0", "--force")
    assert driver.result(120) == "sum %d" % sum(range(600))
    cluster.ready(4)


def test_a_worker_s_pod_is_evicted_under_a_program(cluster):
    driver = Driver(cluster, cluster.head(), SUM)
    pod = cluster.pods("ray-worker")[0]["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"]},
    }
    where = "/api/v1/namespaces/%s/pods/%s/eviction" % (pod["namespace"], pod["name"])
    cluster("create", "--raw", where, "-f", "-", stdin=json.dumps(eviction))
    assert driver.result(90) == "sum %d" % sum(range(600))
    cluster.ready(4)
    until(lambda: cluster.alive() == 4, "4 nodes", 30)
    assert pod["name"] not in {p["metadata"]["name"] for p in cluster.pods()}


def test_sigterm_ends_a_pod_at_once(cluster):
    # A pod that does not end by itself is killed after its grace period, 10 s here.
    for pod in (cluster.head("ray-worker"), cluster.head()):
        start = time.monotonic()
        cluster("delete", "pod", pod, "--wait=true", timeout=60)
        took = time.monotonic() - start
        print("%s: gone after %.1f s" % (pod, took))
        assert took < 8 * kube.SLOW
    cluster.ready(4)
    until(lambda: cluster.alive() == 4, "4 nodes", 60, cluster.story)


def test_a_new_head_takes_over(cluster):
    old = cluster.head()
    before = {p["metadata"]["name"] for p in cluster.pods("ray-worker")}
    driver = Driver(cluster, cluster.head("ray-worker"), WAIT)
    start = time.monotonic()
    cluster("delete", "pod", old, "--wait=false")
    said = driver.end(30)
    took = time.monotonic() - start
    print("the program was told after %.1f s" % took)
    assert took < 5 * kube.SLOW
    assert "LocalRayletDiedError: The node daemon ended this session: the head at" in said, said
    assert "was stopped, and the cluster with it" in said, said
    until(
        lambda: len(cluster.pods("ray-head")) == 1 and cluster.head() != old and cluster.alive() == 4,
        "4 nodes with the new head",
        90,
        cluster.story,
    )
    print("4 nodes again after %.1f s" % (time.monotonic() - start))
    assert {p["metadata"]["name"] for p in cluster.pods("ray-worker")} == before, "the workers' pods stay"


def test_a_head_that_is_killed_is_replaced(cluster):
    driver = Driver(cluster, cluster.head("ray-worker"), WAIT)
    start = time.monotonic()
    cluster.run(cluster.head(), "python", "-c", KILL_DAEMON, check=False)  # which ends with the container
    said = driver.end(30)
    took = time.monotonic() - start
    print("the program was told after %.1f s" % took)
    assert took < 5 * kube.SLOW
    assert "LocalRayletDiedError: The node daemon ended this session: the head" in said, said
    cluster.ready(4)
    until(lambda: cluster.alive() == 4, "4 nodes", 60, cluster.story)


def test_a_container_that_dies_with_a_task_is_named(cluster):
    pod = cluster.pods("ray-worker")[0]
    text = cluster.run(cluster.head(), "python", "-c", END_NODE, pod["status"]["podIP"])
    assert text.startswith("WorkerCrashedError: ") and "the head heard nothing from it" in text, text
    assert "kubectl get pod %s -o jsonpath=" % pod["metadata"]["name"] in text, text
    cluster.ready(4)
    until(lambda: cluster.alive() == 4, "4 nodes", 60, cluster.story)
    last = cluster("get", "pod", pod["metadata"]["name"], "-o", "jsonpath={.status.containerStatuses[*].lastState}")
    assert "exitCode" in last, "the command that the error names says how the container ended"


def test_scaled_to_ten_and_back_under_a_program(cluster):
    driver = Driver(cluster, cluster.head(), SUM.replace("600", "2400"))
    cluster("scale", "deployment/ray-worker", "--replicas=10")
    cluster.ready(11, 120)
    until(lambda: cluster.alive() == 11, "11 nodes", 60, cluster.story)
    assert driver.process.poll() is None, "the program is to run while nodes go"
    cluster("scale", "deployment/ray-worker", "--replicas=3")
    assert driver.result(120) == "sum %d" % sum(range(2400))
    until(lambda: cluster.alive() == 4, "4 nodes", 60, cluster.story)
    cluster.ready(4)


def test_rollout_restart(cluster):
    before = {p["metadata"]["name"] for p in cluster.pods()}
    cluster("rollout", "restart", "deployment/ray-head", "deployment/ray-worker")
    cluster("rollout", "status", "deployment/ray-head", "--timeout=90s", timeout=100)
    cluster("rollout", "status", "deployment/ray-worker", "--timeout=90s", timeout=100)
    until(lambda: cluster.alive() == 4, "4 nodes", 60, cluster.story)
    assert not before & {p["metadata"]["name"] for p in cluster.pods()}


def test_a_read_only_root(own_space):
    with open(kube.CLUSTER, encoding="utf-8") as f:
        text = f.read()
    text = text.replace(
        "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false\n            readOnlyRootFilesystem: true"
    )
    text = text.replace(
        "            - {name: dshm, mountPath: /dev/shm}\n",
        "            - {name: dshm, mountPath: /dev/shm}\n            - {name: tmp, mountPath: /tmp}\n",
    )
    text = text.replace(
        "        - name: dshm\n", "        - name: tmp\n          emptyDir: {}\n        - name: dshm\n"
    ).replace("replicas: 3", "replicas: 1")
    own_space.apply(text)
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
