"""A student's cluster, from nothing to "Success!" and away again, on a real Kubernetes that is made for it on this machine.

    make k8s-demo

Everything after the namespace is made is done with a kubeconfig that is good for this namespace only. Needs root.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import kube

NAMESPACE = "s1234567"


@contextmanager
def step(what, times):
    print("\n== %s" % what, flush=True)
    start = time.monotonic()
    yield
    times.append((what, time.monotonic() - start))


def main(look=None):
    """Does it all, and gives the steps with the seconds they took; ``look(student)`` is called while the cluster is idle."""
    times = []
    with step("a Kubernetes of %d nodes, with the image on each" % kube.NODES, times):
        kubernetes = kube.kubernetes()
        admin = kubernetes.__enter__()
    try:
        with step("namespace %s, and a kubeconfig for it alone" % NAMESPACE, times):
            space = admin.space(NAMESPACE)
            student = space.__enter__()
        try:
            as_student(student, times, look)
        finally:
            with step("the namespace is deleted", times):
                space.__exit__(*sys.exc_info())
    finally:
        with step("Kubernetes is stopped", times):
            kubernetes.__exit__(*sys.exc_info())
    print("\n%8s" % "seconds")
    for what, seconds in times:
        print("%8.1f  %s" % (seconds, what))
    return times


def as_student(student, times, look=None):
    def run(*args):
        print("$ kubectl " + " ".join(args), flush=True)
        subprocess.run(student.command(*args), check=True, timeout=300)

    with tempfile.TemporaryDirectory() as folder:
        for path in (kube.CLUSTER, kube.EXAMPLE):
            shutil.copy(path, folder)
        os.chdir(folder)
        begun = time.monotonic()
        with step("the cluster is made", times):
            run("get", "all")
            run("apply", "-f", "ray-cluster.yaml")
            student.ready(4)
            run("get", "pods")
        head = student.head()
        with step("the program is copied", times):
            run("cp", "example.py", head + ":/example.py")
        with step("the program runs: 10 iterations of 100 chains of two tasks on four nodes", times):
            seen, lines = set(), []
            print("$ kubectl exec %s -- python example.py" % head, flush=True)
            process = subprocess.Popen(
                student.command("exec", head, "--", "python", "example.py"), stdout=subprocess.PIPE, text=True
            )
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith("Iteration 0"):
                    times.append(("of which from apply to the first iteration's result", time.monotonic() - begun))
                seen.update(pairs(line))
                lines.append(line.rstrip())
            if process.wait() != 0 or lines[-1] != "Success!":
                raise SystemExit("the program failed")
        names = [p["metadata"]["name"] for p in student.pods()]
        if seen != {(a, b) for a in names for b in names}:
            raise SystemExit("not all 16 pairs of hosts were seen, but %d" % len(seen))
        print("All %d pairs of hosts were seen." % len(seen))
        if look:
            look(student)
        with step("the cluster is deleted", times):
            run("delete", "-f", "ray-cluster.yaml")
            kube.until(lambda: not student.json("get", "pods")["items"], "the pods to be gone")
        os.chdir("/")


def pairs(line):
    """The (host, host) pairs in a line of the program."""
    return set(re.findall(r"\('([^']+)', '([^']+)'\)", line))


if __name__ == "__main__":
    main()
