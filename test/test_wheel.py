"""The wheel: what is in it, and that it works where there is no Go, no compiler and no checkout."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "packaging"))
import graywheel  # noqa: E402

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="building a wheel needs Go")
DEPENDENCIES = ["cloudpickle", "msgpack"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel for this machine."""
    folder = tmp_path_factory.mktemp("wheel")
    return folder / graywheel.make_wheel(str(folder), graywheel.host_arch())


@pytest.fixture(scope="session")
def site(wheel, tmp_path_factory):
    """A clean virtual environment with the wheel in it, as pip installs it; its dependencies are this interpreter's."""
    folder = tmp_path_factory.mktemp("site") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel], check=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    for name in DEPENDENCIES:
        module = __import__(name)
        shutil.copytree(os.path.dirname(module.__file__), os.path.join(packages, name))
    return folder


def clean_env(site, folder):
    """An environment with no Go, no compiler and nothing of this checkout in it."""
    empty = folder / "empty"
    empty.mkdir()
    return {"PATH": "%s:%s" % (site / "bin", empty), "HOME": str(folder), "RAY_TMPDIR": str(folder)}


@needs_go
def test_wheel_has_the_package_the_binary_and_the_launcher(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        assert "ray/__init__.py" in names
        assert "ray/py.typed" in names
        assert not [n for n in names if n.endswith(".pyc") or "__pycache__" in n or n.startswith("tests")]
        mode = z.getinfo("ray/_bin/ray").external_attr >> 16
        assert mode & 0o111 == 0o111
        launcher = next(n for n in names if n.endswith(".data/scripts/ray"))
        assert z.read(launcher).startswith(b"#!python\n")
    assert wheel.stat().st_size <= 20e6


@needs_go
def test_record_lists_every_file_with_its_hash(wheel):
    import base64
    import csv

    with zipfile.ZipFile(wheel) as z:
        record = next(n for n in z.namelist() if n.endswith(".dist-info/RECORD"))
        rows = {row[0]: row[1:] for row in csv.reader(z.read(record).decode().splitlines())}
        assert set(rows) == set(z.namelist())
        for name, (digest, size) in rows.items():
            if name == record:
                assert (digest, size) == ("", "")
                continue
            data = z.read(name)
            want = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert digest == "sha256=" + want, name
            assert int(size) == len(data), name


@needs_go
def test_metadata_says_it_is_gray_and_needs_two_packages(wheel):
    from email.parser import Parser

    with zipfile.ZipFile(wheel) as z:
        meta = Parser().parsestr(z.read(next(n for n in z.namelist() if n.endswith("/METADATA"))).decode())
    assert meta["Name"] == "ray"
    assert meta["Version"] == graywheel.version()
    assert "Gray" in meta["Summary"] and "not the Ray project" in meta["Summary"]
    assert sorted(r.split(">")[0] for r in meta.get_all("Requires-Dist")) == DEPENDENCIES


@needs_go
def test_the_other_architecture_builds_and_is_tagged_so(tmp_path):
    other = {"amd64": "arm64", "arm64": "amd64"}[graywheel.host_arch()]
    name = graywheel.make_wheel(str(tmp_path), other)
    machine = {"amd64": (b"\x3e\x00", "x86_64"), "arm64": (b"\xb7\x00", "aarch64")}[other]
    assert "manylinux2014_" + machine[1] in name
    with zipfile.ZipFile(tmp_path / name) as z:
        head = z.read("ray/_bin/ray")[:20]
    assert head[:4] == b"\x7fELF"
    assert head[18:20] == machine[0]
    assert (tmp_path / name).stat().st_size <= 20e6


@needs_go
def test_the_same_sources_give_the_same_bytes(wheel, tmp_path):
    again = tmp_path / graywheel.make_wheel(str(tmp_path), graywheel.host_arch())
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


@needs_go
def test_the_command_and_the_module_agree_on_the_version(site, tmp_path):
    env = clean_env(site, tmp_path)
    said = subprocess.run(
        [site / "bin" / "ray", "--version"], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert said.strip() == "ray, version " + graywheel.version()
    code = "import ray; print(ray.__version__)"
    said = subprocess.run(
        [site / "bin" / "python", "-c", code], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert said.strip() == graywheel.version()


@needs_go
def test_a_task_runs_without_go(site, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import ray\n"
        "@ray.remote\n"
        "def double(x):\n"
        "    return 2 * x\n"
        "assert 'site-packages' in ray.__file__, ray.__file__\n"
        "print(ray.get([double.remote(i) for i in range(4)]))\n"
    )
    env = clean_env(site, tmp_path)
    assert shutil.which("go", path=env["PATH"]) is None
    done = subprocess.run(
        [site / "bin" / "python", program],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 2, 4, 6]"


def test_launcher_without_a_binary_says_what_to_do(tmp_path):
    launcher = tmp_path / "ray"
    shutil.copy(ROOT / "packaging" / "launcher.py", launcher)
    done = subprocess.run(
        [sys.executable, "-I", "-S", launcher, "status"], stderr=subprocess.PIPE, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "ray/_bin/ray" in done.stderr and "install" in done.stderr


@needs_go
def test_launcher_hands_on_arguments_and_interpreter(tmp_path):
    package = tmp_path / "ray" / "_bin"
    package.mkdir(parents=True)
    fake = package / "ray"
    fake.write_text('#!/bin/sh\necho "$GRAY_PYTHON" "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "packaging" / "launcher.py", "start", "a b"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.strip() == "%s start a b" % sys.executable
