"""A real Kubernetes on this machine, and what tests do in it."""

import json
import os
import subprocess
import time
from contextlib import contextmanager

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
LOCAL = os.path.join(HERE, "local")
IMAGE = os.path.join(TOP, "dist", "gray-image.tar")
NOTEBOOK_IMAGE = os.path.join(TOP, "dist", "gray-notebook.tar")
TORCH_IMAGE = os.path.join(TOP, "dist", "gray-torch.tar")
CLUSTER = os.path.join(TOP, "deploy", "ray-cluster.yaml")
NOTEBOOK = os.path.join(TOP, "deploy", "notebook.yaml")
EXAMPLE = os.path.join(TOP, "examples", "kubernetes", "example.py")
NODES = 3
SLOW = float(os.environ.get("GRAY_SLOW", "1"))  # how much longer a busy machine may take


def settings():
    """What local/k8s-env says, as a dict."""
    text = subprocess.check_output(["bash", "-c", ". %s/k8s-env && set | grep ^K8S_" % LOCAL], text=True)
    return {k: v.strip("'") for k, _, v in (line.partition("=") for line in text.splitlines())}


def script(name, *args, **env):
    """Runs one of the scripts in local/ and gives what it printed."""
    done = subprocess.run(
        [os.path.join(LOCAL, name), *args], env={**os.environ, **env}, text=True, timeout=1800,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError("%s: exit status %d\n%s%s" % (name, done.returncode, done.stdout, done.stderr))
    return done.stdout.strip()


@contextmanager
def kubernetes(keep=False):
    """A Kubernetes with the image on each of its nodes; gives the administrator's Space-making Kube. One that runs is used."""
    env = settings()
    up = os.path.exists(env["K8S_RUN"])
    try:
        if not up:
            script("k8s-install")
            script("k8s-up", K8S_NODES=str(NODES))
        script("k8s-load-image", IMAGE)
        yield Kube(os.path.join(env["K8S_BIN"], "kubectl"), env["K8S_KUBECONFIG"], env)
    finally:
        if not (keep or up):
            script("k8s-down")


def load(image, env):
    """Loads one of the larger images into each node, unless this very file was loaded last under its name."""
    st = os.stat(image)
    mark = os.path.join(env["K8S_STATE"], os.path.basename(image) + ".loaded")
    what = "%s %d %d" % (image, st.st_mtime_ns, st.st_size)
    if os.path.exists(mark):
        with open(mark, encoding="utf-8") as f:
            if f.read() == what:
                return
        os.remove(mark)
    script("k8s-load-image", image)
    with open(mark, "w", encoding="utf-8") as f:
        f.write(what)


class Failed(Exception):
    """kubectl failed; the text is what it said."""


class Kube:
    """kubectl with one kubeconfig."""

    def __init__(self, kubectl, kubeconfig, env):
        self.kubectl, self.kubeconfig, self.env = kubectl, kubeconfig, env

    def command(self, *args):
        return [
            self.kubectl,
            "--kubeconfig",
            self.kubeconfig,
            "--cache-dir",
            os.path.join(self.env["K8S_STATE"], "kubectl-cache"),
            *args,
        ]

    def __call__(self, *args, stdin=None, timeout=60, check=True):
        """Runs kubectl and gives its output; with check=False stderr comes after it, whatever the exit status."""
        done = subprocess.run(
            self.command(*args),
            text=True,
            timeout=timeout * SLOW,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if check and done.returncode != 0:
            raise Failed(
                "kubectl %s: exit status %d\n%s%s" % (" ".join(args), done.returncode, done.stdout, done.stderr)
            )
        return done.stdout if check else done.stdout + done.stderr

    def json(self, *args):
        return json.loads(self(*args, "-o", "json"))

    @contextmanager
    def space(self, name, enforce="restricted", wait=True):
        """A namespace, and in it a user with the rights of an editor and none outside; gives the user's Kube.

        Without ``wait`` it is left to end by itself, which takes Kubernetes ten seconds.
        """
        self("create", "namespace", name)
        path = os.path.join(self.env["K8S_STATE"], name + ".kubeconfig")
        try:
            self("label", "namespace", name, "pod-security.kubernetes.io/enforce=" + enforce)
            script("k8s-user", name, "student", path)
            until(
                lambda: self("-n", name, "get", "serviceaccount", "default", check=False).startswith("NAME"),
                "the default ServiceAccount",
            )
            yield Kube(self.kubectl, path, self.env)
        finally:
            self("delete", "namespace", name, "--wait=%s" % str(wait).lower(), timeout=120)
            if os.path.exists(path):
                os.remove(path)

    def pods(self, component=None):
        """The pods that are not about to end, oldest first."""
        selector = ["-l", "component=" + component] if component else []
        items = [p for p in self.json("get", "pods", *selector)["items"] if "deletionTimestamp" not in p["metadata"]]
        return sorted(items, key=lambda p: p["metadata"]["creationTimestamp"])

    def head(self, component="ray-head"):
        return self.pods(component)[0]["metadata"]["name"]

    def ready(self, count, seconds=60):
        """Waits for so many pods to be ready and no others to be there."""
        until(
            lambda: [is_ready(p) for p in self.pods()] == [True] * count,
            "%d pods to be ready" % count,
            seconds,
            self.story,
        )

    def story(self):
        """What there is to know when pods do not get ready."""
        text = self("get", "pods", "-o", "wide", check=False)
        for p in self.pods():
            text += "--- %s\n%s" % (
                p["metadata"]["name"],
                self("logs", "--tail=15", p["metadata"]["name"], check=False),
            )
            text += self("logs", "--tail=15", "--previous", p["metadata"]["name"], check=False)
        return text + self("get", "events", "--sort-by=.lastTimestamp", check=False)[-3000:]

    def run(self, pod, *command, **kwargs):
        """Runs a command in a pod."""
        return (
            self("exec", "-i", pod, "--", *command, **kwargs)
            if "stdin" in kwargs
            else self("exec", pod, "--", *command, **kwargs)
        )

    def alive(self, pod=None):
        """How many nodes the cluster has."""
        text = self.run(pod or self.head(), "python", "-c", ALIVE, check=False)
        found = [line for line in text.splitlines() if line.startswith("alive ")]
        return int(found[-1].split()[1]) if found else None

    def apply(self, text):
        return self("apply", "-f", "-", stdin=text)

    def visitor(self, name="visitor", account="default", automount=True):
        """A pod in which to run commands, ready."""
        with open(os.path.join(HERE, "manifests", "visitor.yaml"), encoding="utf-8") as f:
            text = f.read()
        self.apply(
            text.replace("VISITOR", name)
            .replace("ACCOUNT", account)
            .replace("AUTOMOUNT", "true" if automount else "false")
        )
        self("wait", "--for=condition=ready", "pod/" + name, "--timeout=60s")
        return name


ALIVE = "import ray; ray.init(logging_level='error'); print('alive', sum(n['Alive'] for n in ray.nodes()))"


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def until(condition, what, seconds=60, story=lambda: ""):
    """Asks again and again; returns the seconds that it took, or raises with the story."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds * SLOW:
            raise AssertionError("waited %.0f s for %s\n%s" % (time.monotonic() - start, what, story()))
        time.sleep(0.1)
    return time.monotonic() - start
