"""Measures a cluster on a real Kubernetes, and writes the section "On Kubernetes" of FIGURES.md: as root.

    make k8s-bench

The steps are those of `make k8s-demo`; sizes of processes are measured as in cases.py.
"""

import argparse
import datetime
import gzip
import os
import platform
import sys

import cases

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "test", "kubernetes"))

import demo  # noqa: E402
import kube  # noqa: E402

TITLE = "## On Kubernetes"
MB = 1e6


def pids_of(pod):
    """The processes of a pod's containers, as this machine sees them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cgroup" % pid) as f:
                inside = pod["metadata"]["uid"] in f.read()
            with open("/proc/%s/comm" % pid) as f:
                if inside and f.read().strip() != "pause":
                    found.append(int(pid))
        except OSError:
            continue  # it has ended
    return found


def idle(student, sizes):
    for pod in student.pods():
        name = pod["metadata"]["name"]
        size = cases.settled(lambda p=pod: cases.pss_of(pids_of(p)))
        if not size:
            raise SystemExit("no process of pod %s is seen here" % name)
        sizes.setdefault(pod["metadata"]["labels"]["component"], []).append(size / MB)


class Count:
    """A file that only counts what is written to it."""

    size = 0

    def write(self, data):
        self.size += len(data)


def compressed(path):
    count = Count()
    with open(path, "rb") as f, gzip.GzipFile(fileobj=count, mode="wb", compresslevel=6) as out:
        while block := f.read(1 << 20):
            out.write(block)
    return count.size


def rows(rounds, sizes):
    """(case, unit, figures, aim) for each line of the table."""
    steps = {}
    for times in rounds:
        for what, seconds in times:
            steps.setdefault(what, []).append(seconds)

    def of(word):
        (found,) = [v for k, v in steps.items() if word in k]
        return found

    yield "from apply to a result of the program, the image present", "s", of("first iteration"), 10
    yield "the program: ten iterations of 100 chains of two tasks", "s", of("10 iterations"), 10
    yield "from delete to the pods' end", "s", of("cluster is deleted"), 10
    yield "idle head pod, after the program: PSS", "MB", sizes["ray-head"], 60
    yield "idle worker pod, after the program: PSS", "MB", sizes["ray-worker"], 60
    yield "image gray:local", "MB", [os.path.getsize(kube.IMAGE) / MB], None
    yield "image gray:local, compressed by gzip", "MB", [compressed(kube.IMAGE) / MB], 150


def table(lines):
    yield "| case | unit | median (least–most) | aim | reached |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for case, unit, figures, aim in lines:
        figures = sorted(figures)
        median = figures[len(figures) // 2]
        spread = " (%.3g–%.3g)" % (figures[0], figures[-1]) if len(figures) > 1 else ""
        reached = "" if aim is None else "yes" if median <= aim else "no"
        yield "| %s | %s | %.3g%s | %s | %s |" % (
            case,
            unit,
            median,
            spread,
            "" if aim is None else "≤ %d" % aim,
            reached,
        )


def put(path, text):
    """Puts the section in the place of an older one, or at the end."""
    with open(path, encoding="utf-8") as f:
        old = f.read()
    before, found, after = old.partition(TITLE)
    rest = after.partition("\n## ")
    after = "\n## " + rest[2] if found and rest[1] else ""
    with open(path, "w", encoding="utf-8") as f:
        f.write(before.rstrip() + "\n\n" + text.rstrip() + "\n" + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(HERE, "FIGURES.md"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sizes, rounds = {}, []
    for _ in range(args.rounds):
        rounds.append(demo.main(lambda student: idle(student, sizes)))
    lines = list(table(rows(rounds, sizes)))
    print("\n".join(lines))
    put(
        args.out,
        "%s\n\n`make k8s-bench`, %s: three nodes (etcd, API server, kubelets, containerd) and all pods on one machine of %d cores "
        "(%s), %d rounds. PSS is that of all processes of a pod's container; pages that pods of one node share count in part. "
        "The first round follows the load of the image and is the slowest of apply.\n\n%s\n"
        % (
            TITLE,
            datetime.date.today().isoformat(),
            os.cpu_count(),
            "Linux " + platform.release().partition("-")[0],
            args.rounds,
            "\n".join(lines),
        ),
    )


if __name__ == "__main__":
    main()
