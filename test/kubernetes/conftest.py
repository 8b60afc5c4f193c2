import os
import uuid

import pytest

if not os.environ.get("GRAY_KUBERNETES"):
    collect_ignore_glob = ["test_*.py"]  # they start a whole Kubernetes: only `make k8s-test` runs them
else:
    from kube import kubernetes


@pytest.fixture(scope="session")
def admin():
    with kubernetes(keep=bool(os.environ.get("GRAY_KUBERNETES_KEEP"))) as k:
        yield k


def new_name(word):
    return "%s-%s" % (word.replace("_", "-"), uuid.uuid4().hex[:6])


@pytest.fixture(scope="module")
def space(admin, request):
    """A student's namespace, for the tests of one file."""
    with admin.space(
        new_name(request.module.__name__.replace("test_", "")), getattr(request.module, "ENFORCE", "restricted")
    ) as s:
        yield s


@pytest.fixture
def own_space(admin):
    """A namespace for one test."""
    with admin.space(new_name("own"), wait=False) as s:
        yield s
