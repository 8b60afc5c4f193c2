"""What is in the image."""

import json
import tarfile

import kube
import pytest


@pytest.fixture(scope="module")
def visitor(space):
    space.visitor()
    return space


def test_programs_on_the_path(visitor):
    for name in ("bash", "sh", "python", "pip", "ray", "tar", "wget", "grep", "ps"):
        assert visitor.run("visitor", "bash", "-c", "command -v " + name).startswith("/")


def test_tags_name_the_python(visitor):
    minor = visitor.run("visitor", "python", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()
    with tarfile.open(kube.IMAGE) as tar:
        (image,) = json.load(tar.extractfile("manifest.json"))
    assert image["RepoTags"] == ["gray:local", "gray:local-py" + minor]


def test_the_user_and_its_folders(visitor):
    assert visitor.run("visitor", "bash", "-c", "id -u; pwd; echo $HOME").split() == ["1000", "/home/ray", "/home/ray"]
    visitor.run("visitor", "bash", "-c", "touch x /tmp/x /dev/shm/x")


def test_packages(visitor):
    out = visitor.run("visitor", "python", "-c", "import ray, numpy; print(ray.__version__, numpy.arange(3).sum())")
    assert "gray" in out and out.split()[-1] == "3"


def test_a_private_cluster(visitor):
    text = "import ray; f = ray.remote(lambda: 42); print(ray.get(f.remote()))"
    assert visitor.run("visitor", "python", "-c", text).split()[-1] == "42"


def test_files_are_copied_in_and_out(visitor, tmp_path):
    (tmp_path / "in").write_bytes(bytes(range(256)) * 4096)
    for place in ("/in", "in", "/tmp/in"):
        visitor("cp", str(tmp_path / "in"), "visitor:" + place)
    visitor.run("visitor", "cmp", "in", "/tmp/in")
    visitor("cp", "visitor:in", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
