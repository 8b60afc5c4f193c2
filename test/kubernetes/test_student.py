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
