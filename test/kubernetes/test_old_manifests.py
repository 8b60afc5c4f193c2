"""Manifests and programs of 2020 run as they are."""

import os

import kube
import pytest
from kube import until

ENFORCE = "baseline"
MANIFESTS = os.path.join(kube.HERE, "manifests")
PROGRAM = os.path.join(MANIFESTS, "hosts.py")


@pytest.fixture(scope="module")
def old(space):
    space("apply", "-f", os.path.join(MANIFESTS, "2020.yaml"))
    space.ready(4)
    return space


def test_the_program_finds_the_head_by_its_service(old):
    head = old.head()
    old("cp", PROGRAM, head + ":/hosts.py")
    out = old.run(head, "python", "hosts.py", timeout=120)
    assert out.splitlines()[-1] == "Success!"
    for p in old.pods():
        assert p["metadata"]["name"] in out


def test_the_program_in_a_worker_pod(old):
    worker = old.head("ray-worker")
    old("cp", PROGRAM, worker + ":/hosts.py")
    assert old.run(worker, "python", "hosts.py", timeout=120).splitlines()[-1] == "Success!"


def test_a_request_of_100m_counts_as_one_cpu(old):
    out = old.run(
        old.head(),
        "python",
        "-c",
        "import ray; ray.init(logging_level='error'); print([n['Resources']['CPU'] for n in ray.nodes()])",
    )
    assert out.strip().splitlines()[-1] == "[1.0, 1.0, 1.0, 1.0]"


def test_a_job_is_a_driver_with_a_node_of_its_own(old):
    old("create", "configmap", "program", "--from-file=hosts.py=" + PROGRAM)
    old("apply", "-f", os.path.join(MANIFESTS, "job-2020.yaml"))
    until(
        lambda: old.json("get", "job", "ray-job")["status"].get("succeeded") == 1,
        "the job to end",
        120,
        lambda: old("logs", "job/ray-job"),
    )
    assert old("logs", "job/ray-job").rstrip().endswith("Success!")
