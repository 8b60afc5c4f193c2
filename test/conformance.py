"""Runs Ray's own tests on this checkout, in the areas that Gray covers.

    python test/conformance.py --kit FOLDER --python .venv/bin/python --out results.json

FOLDER has the runner (run.py), the suites and the upstream tests; they are run from there and are no part of Gray.
Exit status 1 if fewer than the asked-for share of a group passes. Each test that does not pass is printed with its cause.
"""

import argparse
import json
import os
import subprocess
import sys


class Group:
    """Tests that count together.

    Attributes:
        name: As printed.
        areas: The suites that they come from.
        least: Per cent that must pass.
        only: A file that names those that count, or None for all.
        without: What is in the names of those that do not: they need a package that Gray does not bring.
    """

    def __init__(self, name, areas, least, only=None, without=()):
        self.name, self.areas, self.least, self.only, self.without = name, areas, least, only, without

    def ids(self, kit):
        """Returns {test id: area}."""
        found = {}
        for area in self.areas:
            for i in ids(os.path.join(kit, "suites", area + ".open.txt")):
                if not any(w in i for w in self.without):
                    found[i] = area
        if self.only:
            keep = ids(os.path.join(kit, self.only))
            found = {i: a for i, a in found.items() if i in keep}
        return found


GROUPS = [
    Group("engine", ["init", "tasks", "objects", "serialization", "cluster", "errors"], 80, only="no-actor.ids"),
    Group(
        "actors",
        ["actors", "named-actors", "async-actors", "concurrency-groups", "util"],
        95,
        without=("test_joblib.py",),
    ),
]


def ids(path):
    """Returns the set of test ids in a file, one a line, without comments."""
    with open(path, encoding="utf-8") as f:
        return {line.split("#")[0].strip() for line in f} - {""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kit", required=True, help="folder with run.py")
    parser.add_argument("--python", required=True, help="interpreter with the ray under test")
    parser.add_argument("--out", required=True, help="file for the results, JSON")
    parser.add_argument("--groups", nargs="+", choices=[g.name for g in GROUPS], help="default all")
    parser.add_argument("--only", help="only ids with this text in them")
    parser.add_argument("--pythonpath", action="append", default=[], help="folder with another ray to test")
    parser.add_argument("--shared", action="store_true", help="run in this machine's own namespaces, as root too")
    parser.add_argument("--logs", help="folder for each file's whole output")
    args = parser.parse_args()

    runner = os.path.join(args.kit, "run.py")
    if not os.path.exists(runner):
        sys.exit(
            "no %s: give the folder of Ray's tests and their runner (make conformance CONFORMANCE=folder)" % runner
        )
    groups = [(g, g.ids(args.kit)) for g in GROUPS if not args.groups or g.name in args.groups]
    chosen = sorted({i for _, of in groups for i in of if not args.only or args.only in i})
    if not chosen:
        sys.exit("no test has %r in its id" % args.only)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    if os.path.exists(args.out):
        os.unlink(args.out)  # an old file must not pass for this run's
    command = [sys.executable, runner, "--python", args.python, "--out", args.out, "--ids", *chosen]
    if os.geteuid() == 0 and not args.shared:
        command += ["--isolate", "--jobs", "2"]  # the tests want Ray's usual ports, which others here may have
    for folder in args.pythonpath:
        command += ["--pythonpath", folder]
    if args.logs:
        command += ["--logs", args.logs]
    subprocess.run(command, check=True)

    with open(args.out, encoding="utf-8") as f:
        results = json.load(f)
    return max(report(g, of, results) for g, of in groups)


def report(group, of, results):
    """Prints how a group did; returns 1 if too few of it passed."""
    tests, files = {i: t for i, t in results["tests"].items() if i in of}, results["files"]
    passed = [i for i, t in tests.items() if t["outcome"] == "passed"]
    counted = [i for i, t in tests.items() if t["outcome"] != "skipped"]
    if not counted:
        return 0
    rate = 100.0 * len(passed) / len(counted)
    for i in sorted(set(tests) - set(passed)):
        notes = files.get(i.split("::")[0], {}).get("notes", [])  # why a file could not be imported
        cause = "; ".join([*notes, tests[i]["text"]])
        print("%-8s %s (%s): %s" % (tests[i]["outcome"], i, of[i], cause[:300]))
    print(
        "%s: %d of %d passed, %.1f %%; at least %g %% must" % (group.name, len(passed), len(counted), rate, group.least)
    )
    return 0 if rate >= group.least else 1


if __name__ == "__main__":
    sys.exit(main())
