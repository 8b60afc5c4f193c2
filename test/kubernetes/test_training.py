"""The training example in pods with torch; where `make image-torch` was run."""

import os
import re

import kube
import pytest
from test_notebook import executed, printed, value

pytestmark = pytest.mark.skipif(
    not os.path.exists(kube.TORCH_IMAGE), reason="no dist/gray-torch.tar: `make image-torch` makes it"
)


@pytest.fixture(scope="module")
def cluster(admin, space):
    kube.load(kube.TORCH_IMAGE, admin.env)
    for path in (kube.CLUSTER, kube.NOTEBOOK):
        with open(path, encoding="utf-8") as f:
            space.apply(re.sub("gray:(local|notebook)", "gray:torch", f.read()))
    space.ready(5)
    return space


def test_on_three_workers_as_in_one_process(cluster):
    names = {p["metadata"]["name"] for p in cluster.pods() if p["metadata"]["labels"]["component"] != "notebook"}
    pod = cluster.head("notebook")
    out = cluster.run(pod, "bash", "-c", "cd work && python ../examples/train.py --check", timeout=240)
    print(out)
    hosts = re.search(r"^3 workers on (.*)$", out, re.M).group(1).split(", ")
    assert len(hosts) == 3 and set(hosts) <= names
    losses = [float(x) for x in re.findall(r"^step .* loss (\S+)$", out, re.M)]
    assert len(losses) == 11 and losses[-1] < losses[0] / 5
    assert float(re.search(r"at most (\S+) apart", out).group(1)) < 1e-6
    assert out.splitlines()[-1] == "Success!"
    signature = "print(open('work/loss.png', 'rb').read(8))"
    assert cluster.run(pod, "python", "-c", signature).strip() == r"b'\x89PNG\r\n\x1a\n'"


def test_in_one_pod_alone_as_on_a_laptop(cluster):
    pod = cluster.head("notebook")
    command = "cd /tmp && RAY_ADDRESS=local python ~/examples/train.py --check --workers=2 --steps=50"
    out = cluster.run(pod, "bash", "-c", command, timeout=240)
    assert "2 workers on %s, %s\n" % (pod, pod) in out
    assert out.splitlines()[-1] == "Success!"


def test_its_notebook(cluster):
    run, plot, _ = executed(cluster, "train.ipynb", 240)
    assert printed(run).splitlines()[-1] == "Success!"
    assert value(plot, "image/png").startswith("iVBOR")
