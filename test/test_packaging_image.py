"""The two ways to build the images, image.py and the Dockerfile, put the same into them."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "packaging"))
import graywheel  # noqa: E402
import image  # noqa: E402


def stages():
    """The Dockerfile's stages: name ("" for one without) to the list of its (instruction, rest)."""
    text = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", "")
    found = {}
    for line in filter(None, map(str.strip, lines.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            current = found[name] = [("FROM", source)]
        else:
            current.append((word, rest))
    return found


def commands(stage, *begin):
    """The arguments, without options, of each command of a stage's RUNs that begins so."""
    for word, rest in stage:
        if word == "RUN":
            for command in rest.split("&&"):
                words = shlex.split(command)
                words[0] = words[0].rpartition("/")[2]
                if words[: len(begin)] == list(begin):
                    yield [w for w in words[len(begin) :] if not w.startswith("-")]


@pytest.fixture(scope="module")
def ray():
    return stages()["ray"]


def said(stage, word):
    return [rest for w, rest in stage if w == word]


def test_debian_packages(ray):
    assert said(ray, "FROM") == ["debian:%s-slim" % image.SUITE]
    (packages,) = commands(ray, "apt-get", "install")
    assert sorted(packages) == sorted(image.PACKAGES)


def test_python_packages(ray):
    installed = [name for names in commands(ray, "pip", "install") for name in names if not name.startswith("/")]
    needs = [re.match(r"[\w-]+", r).group(0) for r in graywheel.REQUIRES]
    assert sorted(installed) == sorted(["numpy", "ray", *needs])
    assert list(commands(ray, "python3", "-m", "venv")) == [[image.VENV]]


def test_user_environment_and_folders(ray):
    (useradd,) = [rest for word, rest in ray if word == "RUN" and "useradd" in rest]
    assert "--uid %d --home-dir %s --shell /bin/bash" % (image.UID, image.HOME) in useradd
    assert "chmod 1777 " + image.HOME in useradd
    assert said(ray, "USER") == [str(image.UID)]
    assert said(ray, "WORKDIR") == [image.HOME]
    assert dict(pair.split("=", 1) for pair in said(ray, "ENV")[0].split()) == image.ENV
    assert said(ray, "CMD") == ['["/bin/bash"]']
    assert "--chmod=755 packaging/image_tar.sh /usr/local/bin/tar" in said(ray, "COPY")


def test_the_notebook():
    stage = stages()["notebook"]
    assert said(stage, "FROM") == ["ray"]
    assert sorted(*commands(stage, "pip", "install")) == sorted(image.NOTEBOOK)
    assert list(commands(stage, "jupyter", "labextension", "disable")) == [[image.NEWS]]
    assert said(stage, "COPY") == ["--chown=ray examples/kubernetes examples"]


def test_the_last_stage_is_the_plain_image():
    assert list(stages().items())[-1] == ("", [("FROM", "ray")])


def test_what_the_manifests_run_is_built():
    tags = set(re.findall(r"gray:[a-z]+", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for manifest in (ROOT / "deploy").glob("*.yaml"):
        used = set(re.findall(r"image: (\S+)", manifest.read_text(encoding="utf-8")))
        assert used and used <= tags | {"gray:local"}
