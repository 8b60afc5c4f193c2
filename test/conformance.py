"""Runs Ray's own tests on this checkout, in the areas that Gray covers.

    python test/conformance.py --kit FOLDER --python .venv/bin/python --out results.json

FOLDER has the runner (run.py), the suites and the upstream tests; they are run from there and are no part of Gray.
Exit status 1 if too few pass of all, or of one area. Each test that does not pass is printed with its cause.
"""

import argparse
import json
import os
import subprocess
import sys

# Areas that count together, and how much of each must pass at the least.
AREAS = """tasks objects serialization errors generators cancel init cluster runtime-context logging cli cli-click doc-examples
resources scheduling actors named-actors async-actors concurrency-groups util state-api client""".split()
LEAST = 95.0  # per cent of them all
LEAST_AREA = 85.0  # per cent of each

# What does not count, and why: features that are not built yet, and what cannot run with the packages here.
WITHOUT = {
    "placement groups": [
        "doc/placement_group_example.py",
        "test_basic.py::test_release_cpu_resources",
        "test_namespace.py::test_placement_groups",
        "test_runtime_context.py::test_ids",
        "test_scheduling.py::test_gpu_scheduling_liveness",
        "test_scheduling_2.py::test_negative_resource_availability",
        "test_state_api.py::test_data_truncate",
    ],
    "spilling": [
        "test_object_manager.py::test_maximize_concurrent_pull_race_condition",
        "test_object_manager.py::test_object_transfer_during_oom",
        "test_ray_get.py::test_multithreaded_ray_get",
    ],
    "rebuilding of lost objects": [
        "test_streaming_generator_4.py::test_actor_intermediate_generator_object_recovery_while_generator_running",
        "test_streaming_generator_4.py::test_intermediate_generator_object_recovery_while_generator_running",
    ],
    "the dashboard": [
        "test_global_state.py::test_global_state_actor_entry",
        "test_state_api_log.py::test_log_job",
        "test_state_api_log.py::test_logs_stream_and_tail",
    ],
    "that what a task has called ends with its worker: here it goes on": [
        "test_task_events_2.py::test_fault_tolerance_advanced_tree"
    ],
    "ray symmetric-run": ["test_symmetric_run.py::test_symmetric_run_arg_validation"],
    "what fails on Ray 2.60.0, too: parts of an older client's inside": [
        "test_client.py::test_basic_log_stream",
        "test_client_terminate.py::test_kill_cancel_metadata",
        "test_ray_init_2.py::test_ray_init_valid_keyword_with_client",
    ],
    "that actors' generators are refused by ray://: here they stream": [
        "test_client.py::test_actor_streaming_returns_error_message"
    ],
    "boto3, without which the file cannot be imported": ["test_cli.py::test_kill_actor_by_name_via_cli"],
    "scikit-learn, without which the file cannot be imported": [
        "test_joblib.py::test_ray_backend",
        "test_joblib.py::test_register_ray",
        "test_joblib.py::test_task_to_actor_assignment",
    ],
}


def ids(path):
    """Returns the set of test ids in a file, one a line, without comments."""
    with open(path, encoding="utf-8") as f:
        return {line.split("#")[0].strip() for line in f} - {""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kit", required=True, help="folder with run.py")
    parser.add_argument("--python", required=True, help="interpreter with the ray under test")
    parser.add_argument("--out", required=True, help="file for the results, JSON")
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=AREAS, help="default all")
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
    aside = {i for of in WITHOUT.values() for i in of}
    area_of = {}
    for area in args.areas:
        for i in ids(os.path.join(args.kit, "suites", area + ".open.txt")) - aside:
            area_of[i] = area
    chosen = sorted(i for i in area_of if not args.only or args.only in i)
    if not chosen:
        sys.exit("no test has %r in its id" % args.only)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    if os.path.exists(args.out):
        os.unlink(args.out)  # an old file must not pass for this run's
    command = [sys.executable, runner, "--python", args.python, "--out", args.out, "--reruns", "1", "--ids", *chosen]
    if os.geteuid() == 0 and not args.shared:
        command += ["--isolate", "--jobs", "2"]  # the tests want Ray's usual ports, which others here may have
    for folder in args.pythonpath:
        command += ["--pythonpath", folder]
    if args.logs:
        command += ["--logs", args.logs]
    subprocess.run(command, check=True)

    with open(args.out, encoding="utf-8") as f:
        results = json.load(f)
    return report(area_of, results)


def report(area_of, results):
    """Prints how the areas did; returns 1 if too little of one, or of all, passed."""
    counts = {}
    for i, t in sorted(results["tests"].items()):
        if i not in area_of or t["outcome"] == "skipped":
            continue
        passed = t["outcome"] == "passed"
        if t.get("flaky"):
            print("flaky    %s (%s): passed when run again" % (i, area_of[i]))
        count = counts.setdefault(area_of[i], [0, 0])
        count[0] += passed
        count[1] += 1
        if not passed:
            notes = results["files"].get(i.split("::")[0], {}).get("notes", [])  # why a file could not be imported
            print("%-8s %s (%s): %s" % (t["outcome"], i, area_of[i], "; ".join([*notes, t["text"]])[:300]))
    if not counts:
        sys.exit("no test ran")
    counts["all"] = [sum(c[k] for c in counts.values()) for k in (0, 1)]
    bad = False
    for area, (passed, of) in counts.items():
        rate, least = 100.0 * passed / of, LEAST if area == "all" else LEAST_AREA
        bad = bad or rate < least
        print("%-20s %3d of %3d passed, %5.1f %%; at least %g %% must" % (area, passed, of, rate, least))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
