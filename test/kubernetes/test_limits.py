"""What a namespace, a container and its volumes allow: quotas, defaults, memory and CPU limits, a small /dev/shm, two clusters."""

import json

import kube
from kube import until

RESOURCES = "resources:\n            requests: {cpu: 100m, memory: 512Mi}"

EAT = """
import ray
ray.init(logging_level="error", log_to_driver=False)

@ray.remote(max_retries=0, num_cpus=0.5)
def eat():
    return len(bytearray(b"x") * (1 << 30))

try:
    print(ray.get(eat.remote()))
except ray.exceptions.OutOfMemoryError as e:
    print("OutOfMemoryError:", e)
print("then", ray.get(ray.remote(lambda: 42).remote()))
"""

TOTALS = """
import json, ray
ray.init(logging_level="error")
print(json.dumps(ray.cluster_resources()))
"""

NAMES = """
import ray
ray.init(logging_level="error")
print(" ".join(sorted(n["NodeManagerHostname"] for n in ray.nodes() if n["Alive"])))
"""

PUT = """
import numpy, ray
ray.init(logging_level="error")

@ray.remote
def total(a):
    return int(a.sum())

refs = [ray.put(numpy.ones(4 << 20)) for _ in range(4)]  # 32 MiB each
print("sums", ray.get([total.remote(r) for r in refs]))
"""


def manifest(replicas=1, resources=None):
    """Our manifest with few workers, and its containers' resources replaced."""
    with open(kube.CLUSTER, encoding="utf-8") as f:
        text = f.read()
    text = text.replace("replicas: 3", "replicas: %d" % replicas)
    if resources:
        assert text.count(RESOURCES) == 2
        text = text.replace(RESOURCES, "resources:\n            " + resources)
    return text


def without(text, *parts):
    for part in parts:
        assert text.count(part) == 2, part
        text = text.replace(part, "")
    return text


def program(space, text, pod=None, lines=1):
    """Runs a program in a pod, the head's if none is named, and gives its last lines."""
    return space.run(pod or space.head("ray-head"), "python", "-c", text).splitlines()[-lines:]


def limit_of(admin, space, kind, spec):
    """The administrator puts a LimitRange or a ResourceQuota into a namespace."""
    namespace = space.json("get", "serviceaccount", "default")["metadata"]["namespace"]
    item = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "test", "namespace": namespace}, "spec": spec}
    admin("apply", "-f", "-", stdin=json.dumps(item))


def test_a_limit_range_with_defaults(admin, own_space):
    defaults = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "768Mi"},
        "defaultRequest": {"cpu": "50m", "memory": "128Mi"},
    }
    limit_of(admin, own_space, "LimitRange", {"limits": [defaults]})
    own_space.apply(manifest())
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
    for pod in own_space.pods():
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"] == {"cpu": "500m", "memory": "768Mi"}
    totals = json.loads(program(own_space, TOTALS)[0])
    assert totals["CPU"] == 2
    assert 0 < totals["memory"] < 2 * 768 << 20, "the limits of the containers count, not the machine's memory"


def test_a_quota_that_just_fits_and_one_that_does_not(admin, own_space):
    limit_of(
        admin, own_space, "ResourceQuota", {"hard": {"pods": "3", "requests.cpu": "300m", "requests.memory": "1536Mi"}}
    )
    own_space.apply(manifest(replicas=2))
    own_space.ready(3)
    until(lambda: own_space.alive() == 3, "3 nodes", 30, own_space.story)
    own_space("scale", "deployment/ray-worker", "--replicas=3")

    def why():
        sets = own_space.json("get", "replicasets", "-l", "app=ray")["items"]
        return [c["message"] for s in sets for c in s["status"].get("conditions", []) if c["type"] == "ReplicaFailure"]

    until(why, "Kubernetes to say that the quota is used up")
    assert "exceeded quota: test" in why()[0], why()
    assert own_space.alive() == 3


def test_limits_are_the_cluster_s_resources(own_space):
    text = manifest(resources='limits: {cpu: "1", memory: 400Mi}')
    own_space.apply(without(text, "--num-cpus=$MY_CPU_REQUEST"))
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
    totals = json.loads(program(own_space, TOTALS)[0])
    assert totals["CPU"] == 2, "one a container, whatever the machine has"
    assert 100 << 20 < totals["memory"] < 2 * 400 << 20
    assert totals["object_store_memory"] <= 2 * 400 << 20


def test_a_worker_killed_for_memory_is_named(own_space):
    own_space.apply(manifest(resources="limits: {cpu: 500m, memory: 400Mi}"))
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
    before = {p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["restartCount"] for p in own_space.pods()}
    text = "\n".join(program(own_space, EAT, lines=5))
    assert (
        "OutOfMemoryError: Task " in text
        and "killed by SIGKILL, most likely by the kernel because memory ran out" in text
    ), text
    assert "limit is 400 MiB" in text and "Raise resources.limits.memory of the pod" in text, text
    assert text.endswith("then 42"), text
    after = {p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["restartCount"] for p in own_space.pods()}
    assert before == after, "nothing but the task's process has ended"


def test_a_small_dev_shm(own_space):
    """Without a volume a container has 64 MiB of shared memory: objects go to files, and a node's log says so."""
    text = without(
        manifest(),
        "            - {name: dshm, mountPath: /dev/shm}\n",
        "        - name: dshm\n          emptyDir: {medium: Memory}\n",
    )
    own_space.apply(text)
    own_space.ready(2)
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
    size = own_space.run(own_space.head("ray-head"), "df", "-m", "--output=size", "/dev/shm").split()[-1]
    assert int(size) == 64
    assert program(own_space, PUT) == ["sums %s" % ([4 << 20] * 4)]


def test_two_clusters_in_one_namespace(own_space):
    ray = manifest()
    blue = ray.replace("ray-head", "blue-head").replace("ray-worker", "blue-worker").replace("app: ray", "app: blue")
    blue = blue.replace("RAY_HEAD_SERVICE", "BLUE_HEAD_SERVICE")
    own_space.apply(ray)
    own_space.apply(blue)
    own_space.ready(4, 90)
    for color in ("ray", "blue"):
        head, worker = own_space.head(color + "-head"), own_space.head(color + "-worker")
        want = " ".join(sorted((head, worker)))
        for pod in (head, worker):
            until(
                lambda p=pod, w=want: program(own_space, NAMES, p) == [w],
                "the nodes of %s" % color,
                30,
                own_space.story,
            )


def test_applied_twice(own_space):
    text = manifest()
    own_space.apply(text)
    own_space.ready(2)
    before = [p["metadata"]["uid"] for p in own_space.pods()]
    said = own_space.apply(text)
    assert said.count("unchanged") == 3, said
    own_space.ready(2)
    assert [p["metadata"]["uid"] for p in own_space.pods()] == before
    until(lambda: own_space.alive() == 2, "2 nodes", 30, own_space.story)
