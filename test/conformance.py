"""Runs Ray's own tests on this checkout: those without actors, in the areas that Gray covers.

    python test/conformance.py --kit FOLDER --python .venv/bin/python --out results.json

FOLDER has the runner (run.py), the suites and the upstream tests; they are run from there and are no part of Gray.
Exit status 1 if fewer than the asked-for share passes. Each test that does not pass is printed with its cause.
"""

import argparse
import json
import os
import subprocess
import sys

AREAS = ["init", "tasks", "objects", "serialization", "cluster", "errors"]


def ids(path):
    """Returns the set of test ids in a file, one a line, without comments."""
    with open(path, encoding="utf-8") as f:
        return {line.split("#")[0].strip() for line in f} - {""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kit", required=True, help="folder with run.py")
    parser.add_argument("--python", required=True, help="interpreter with the ray under test")
    parser.add_argument("--out", required=True, help="file for the results, JSON")
    parser.add_argument("--areas", nargs="+", default=AREAS)
    parser.add_argument("--only", help="only ids with this text in them")
    parser.add_argument("--least", type=float, default=80, help="per cent that must pass")
    parser.add_argument("--pythonpath", action="append", default=[], help="folder with another ray to test")
    parser.add_argument("--shared", action="store_true", help="run in this machine's own namespaces, as root too")
    parser.add_argument("--logs", help="folder for each file's whole output")
    args = parser.parse_args()

    runner = os.path.join(args.kit, "run.py")
    if not os.path.exists(runner):
        sys.exit(
            "no %s: give the folder of Ray's tests and their runner (make conformance CONFORMANCE=folder)" % runner
        )
    area_of = {}
    for area in args.areas:
        for i in ids(os.path.join(args.kit, "suites", area + ".open.txt")):
            area_of[i] = area
    chosen = sorted(set(area_of) & ids(os.path.join(args.kit, "no-actor.ids")))
    if args.only:
        chosen = [i for i in chosen if args.only in i]
    if not chosen:
        sys.exit("no test has %r in its id" % args.only)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    if os.path.exists(args.out):
        os.unlink(args.out)  # an old file must not pass for this run's
    command = [sys.executable, runner, "--python", args.python, "--out", args.out, "--ids", *chosen]
    if os.geteuid() == 0 and not args.shared:
        command += ["--isolate"]  # the tests want Ray's usual ports, which others here may have
    for folder in args.pythonpath:
        command += ["--pythonpath", folder]
    if args.logs:
        command += ["--logs", args.logs]
    subprocess.run(command, check=True)

    with open(args.out, encoding="utf-8") as f:
        results = json.load(f)
    tests, files = results["tests"], results["files"]
    passed = [i for i, t in tests.items() if t["outcome"] == "passed"]
    counted = [i for i, t in tests.items() if t["outcome"] != "skipped"]
    rate = 100.0 * len(passed) / max(1, len(counted))
    for i in sorted(set(tests) - set(passed)):
        notes = files.get(i.split("::")[0], {}).get("notes", [])  # why a file could not be imported
        cause = "; ".join([*notes, tests[i]["text"]])
        print("%-8s %s (%s): %s" % (tests[i]["outcome"], i, area_of[i], cause[:300]))
    print("%d of %d passed, %.1f %%; at least %g %% must" % (len(passed), len(counted), rate, args.least))
    return 0 if rate >= args.least else 1


if __name__ == "__main__":
    sys.exit(main())
