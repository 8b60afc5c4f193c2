"""What a student does: a cluster from one file, a program on all of its pods, and away with it."""

import re
import time

import kube
import pytest
from kube import Failed, until


def pairs(text):
    """The (host, host) pairs that the program saw."""
    return set(re.findall(r"\('([^']+)', '([^']+)'\)", text))


def test_a_student_runs_a_program_on_all_pods(space):
    assert "No resources found" in space("get", "all", check=False)
    start = time.monotonic()
    made = space("apply", "-f", kube.CLUSTER)
    assert made.split("\n")[:3] == [
        "service/ray-head created",
        "deployment.apps/ray-head created",
        "deployment.apps/ray-worker created",
    ]
    space.ready(4)
    print("apply to ready: %.1f s" % (time.monotonic() - start))
    names = [p["metadata"]["name"] for p in space.pods()]
    head = space.head()
    space("cp", kube.EXAMPLE, head + ":/example.py")
    start = time.monotonic()
    out = space.run(head, "python", "example.py", timeout=120)
    print("example: %.1f s" % (time.monotonic() - start))
    assert out.splitlines()[-1] == "Success!"
    assert len(re.findall(r"^Iteration \d:", out, re.M)) == 10
    assert pairs(out) == {(a, b) for a in names for b in names}
    start = time.monotonic()
    space("delete", "-f", kube.CLUSTER)
    until(lambda: not space.json("get", "pods")["items"], "the pods to be gone", 30)
    print("delete: %.1f s" % (time.monotonic() - start))


def test_the_user_has_no_right_elsewhere(space):
    for question in (("get", "pods", "-n", "kube-system"), ("get", "nodes"), ("create", "namespace", "mine")):
        with pytest.raises(Failed, match="Forbidden|forbidden"):
            space(*question)


def test_applied_twice_nothing_changes(own_space):
    own_space("apply", "-f", kube.CLUSTER)
    own_space.ready(4)
    before = {p["metadata"]["uid"] for p in own_space.pods()}
    again = own_space("apply", "-f", kube.CLUSTER)
    assert again.count("unchanged") == 3, again
    assert {p["metadata"]["uid"] for p in own_space.pods()} == before
    assert own_space.alive() == 4


def test_two_clusters_of_a_namespace_do_not_mix(own_space):
    with open(kube.CLUSTER, encoding="utf-8") as f:
        text = f.read()
    other = (
        text.replace("ray-head", "two-head")
        .replace("ray-worker", "two-worker")
        .replace("RAY_HEAD", "TWO_HEAD")
        .replace("app: ray", "app: two")
    )
    other = other.replace("replicas: 3", "replicas: 1")
    own_space.apply(text)
    own_space.apply(other)
    own_space.ready(6)
    until(lambda: own_space.alive() == 4, "4 nodes of the first cluster")
    until(lambda: own_space.alive(own_space.head("two-head")) == 2, "2 nodes of the second")


def test_a_small_quota_and_limits_of_the_namespace(own_space, admin):
    namespace = own_space.json("get", "serviceaccount", "default")["metadata"]["namespace"]
    admin("-n", namespace, "create", "quota", "small", "--hard=pods=4,requests.cpu=400m,requests.memory=2Gi")
    own_space("apply", "-f", kube.CLUSTER)
    own_space.ready(4)
    assert own_space.alive() == 4
