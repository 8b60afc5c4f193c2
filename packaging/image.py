"""Builds the container image: dist/gray-image.tar, which `docker load`, `ctr images import` and `podman load` read.

    python packaging/image.py --wheel dist/ray-….whl --out dist/gray-image.tar [--tag gray:local] [--python 3.12]
                              [--notebook] [--torch]

It has a second tag with its Python's minor version, such as gray:local-py312, as drivers by ray:// need the same one.

The image is a Debian file tree, made by mmdebstrap, with the wheel and numpy in a virtual environment at /opt/ray. No
container engine is needed, neither to build nor as a base image: a tree that is packed with tar is all that an image
is, and it can be built where neither a registry nor user namespaces are at hand (buildah needs both for this).
packaging/Dockerfile gives the same for who has an engine. Needs root and mmdebstrap.
"""

import argparse
import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from graywheel import MACHINES

SUITE = "bookworm"
PACKAGES = ["bash", "ca-certificates", "procps", "python3", "python3-venv", "tar", "wget"]
# What an interpreter that is not Debian's needs to run.
LIBRARIES = [
    "libbz2-1.0",
    "libffi8",
    "liblzma5",
    "libncursesw6",
    "libreadline8",
    "libsqlite3-0",
    "libssl3",
    "libuuid1",
    "zlib1g",
]
TORCH = ["python3-torch", "python3-numpy"]
# What the notebook's pod has besides, from PyPI.
NOTEBOOK = ["jupyterlab", "matplotlib"]
LEAVE_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*"]

# bytes when compressed; pulling it is what a user waits for first
LARGEST = 150e6
LARGEST_NOTEBOOK = 200e6

VENV = "/opt/ray"
# Where modules are.
LIBRARIES_OF_PYTHON = ["opt/ray/lib", "usr/lib/python3*", "usr/local/lib"]
NEWS = "@jupyterlab/apputils-extension:announcements"
UID = 1000
HOME = "/home/ray"
ENV = {
    "PATH": VENV + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME,
    "LANG": "C.UTF-8",
}


def run(*command, **kwargs):
    """Runs a command; SystemExit with what it said if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit("image: %s: exit status %d\n%s" % (" ".join(command), done.returncode, done.stdout[-4000:]))
    return done.stdout


def base(cache, packages):
    """Returns a tar file with a Debian tree that has these packages, made once."""
    name = hashlib.sha256(" ".join([SUITE, *sorted(packages), *LEAVE_OUT]).encode()).hexdigest()[:12]
    path = os.path.join(cache, "debian-%s.tar" % name)
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        print("image: a Debian tree with %s; this takes a minute or two" % ", ".join(packages), flush=True)
        part = path + ".part.tar"
        run(
            "mmdebstrap",
            "--variant=minbase",
            "--include=" + ",".join(packages),
            *("--dpkgopt=path-exclude=" + p for p in LEAVE_OUT),
            SUITE,
            part,
        )
        os.rename(part, path)
    return path


def interpreter(minor):
    """Returns the prefix of an installation of Python `minor` on this machine."""
    for command in (["pyenv", "prefix", minor], ["python" + minor, "-c", "import sys; print(sys.base_prefix)"]):
        if shutil.which(command[0]):
            found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if found.returncode == 0 and found.stdout.strip() not in ("", "/usr"):
                return found.stdout.strip()
    raise SystemExit(
        "image: no Python %s to take along: pyenv has none and there is no python%s on PATH. Install one "
        "(pyenv install %s), or leave --python out for Debian's own." % (minor, minor, minor)
    )


def add_interpreter(tree, minor):
    """Copies an interpreter into the tree's /usr/local and returns its path there."""
    prefix = interpreter(minor)
    for part in ("bin/python" + minor, "lib"):
        source, target = os.path.join(prefix, part), os.path.join(tree, "usr/local", part)
        if os.path.isdir(source):
            skip = shutil.ignore_patterns(
                "__pycache__", "test", "site-packages", "config-*", "*.a", "idlelib", "tkinter"
            )
            shutil.copytree(source, target, symlinks=True, ignore=skip, dirs_exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
    run("chroot", tree, "ldconfig")
    return "/usr/local/bin/python" + minor


def install(tree, python, wheel, torch, notebook):
    """Makes the virtual environment with the wheel, from packages that this machine's pip fetches."""
    version = run("chroot", tree, python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    # Debian's torch is built for Debian's numpy, so that one is seen, not brought.
    more = ["--system-site-packages"] if torch else []
    run("chroot", tree, python, "-m", "venv", *more, VENV)
    wheels = tempfile.mkdtemp(dir=os.path.join(tree, "tmp"))
    shutil.copy(wheel, wheels)
    numpy = [] if torch and not notebook else ["numpy<2"] if torch else ["numpy"]
    names = [*(NOTEBOOK if notebook else []), *numpy]
    run(
        sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", version, "--dest", wheels,
        *names, wheel,
    )  # fmt: skip
    inside = "/tmp/" + os.path.basename(wheels)
    pip = ["chroot", tree, VENV + "/bin/pip", "install", "-q", "--no-compile", "--no-index", "--find-links", inside]
    run(*pip, "ray", *names)
    shutil.rmtree(wheels)


def furnish(tree):
    """Puts the examples into the home of the notebook's user, and switches off what asks the internet for news."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = os.path.join(tree, HOME.lstrip("/"), "examples")
    shutil.copytree(os.path.join(top, "examples", "kubernetes"), target, ignore=shutil.ignore_patterns("__pycache__"))
    run("chroot", tree, VENV + "/bin/jupyter", "labextension", "disable", NEWS, env={**ENV, "HOME": "/root"})


def finish(tree):
    """Makes the tree one that user 1000 can live in, and others whom a cluster gives a number of its own."""
    with open(os.path.join(tree, "etc/passwd"), "a", encoding="utf-8") as f:
        f.write("ray:x:%d:%d::%s:/bin/bash\n" % (UID, UID, HOME))
    with open(os.path.join(tree, "etc/group"), "a", encoding="utf-8") as f:
        f.write("ray:x:%d:\n" % UID)
    os.makedirs(tree + HOME, exist_ok=True)
    compile_all(tree)
    run("chown", "-R", "%d:%d" % (UID, UID), tree + HOME, tree + VENV)
    os.chmod(tree + HOME, 0o1777)
    os.chmod(tree, 0o755)
    tar = os.path.join(tree, "usr/local/bin/tar")
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "image_tar.sh"), tar)
    os.chmod(tar, 0o755)
    for folder in ("var/lib/apt", "var/cache/apt", "var/log", "var/cache/debconf"):
        shutil.rmtree(os.path.join(tree, folder), ignore_errors=True)
        os.makedirs(os.path.join(tree, folder))


def compile_all(tree):
    """Compiles all modules, for who uses them may not write there, and would compile them each time."""
    for folder, names, _ in os.walk(tree):
        if "__pycache__" in names:
            names.remove("__pycache__")
            shutil.rmtree(os.path.join(folder, "__pycache__"))
    # Not by the sources' times, which are not kept. Some packages bring files that are for other Pythons: they stay as
    # they are, and compileall then has an exit status of 1.
    folders = sorted(f[len(tree) :] for p in LIBRARIES_OF_PYTHON for f in glob.glob(os.path.join(tree, p)))
    command = [VENV + "/bin/python", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", *folders]
    subprocess.run(["chroot", tree, *command], stdout=subprocess.DEVNULL, check=False)
    if not any(name.startswith("__init__.") for name in os.listdir(pycache_of_ray(tree))):
        raise SystemExit("image: compileall did not compile the ray package")


def pycache_of_ray(tree):
    (lib,) = glob.glob(tree + VENV + "/lib/python3*/site-packages/ray")
    return os.path.join(lib, "__pycache__")


def minor_of(tree):
    """Returns the minor version of the tree's Python, such as 3.11."""
    (lib,) = glob.glob(tree + VENV + "/lib/python3*")
    return os.path.basename(lib)[len("python") :]


def pack(tree, tags, out):
    """Writes the tree as an image of one layer, and returns (bytes, bytes when compressed)."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as work:
        layer = os.path.join(work, "layer.tar")
        run("tar", "-C", tree, "--numeric-owner", "--sort=name", "--mtime=@0", "--one-file-system", "-cf", layer, ".")
        digest = hashlib.sha256()
        packed = Counting()
        with open(layer, "rb") as f, gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as z:
            for block in iter(lambda: f.read(1 << 20), b""):
                digest.update(block)
                z.write(block)
        config = json.dumps(
            {
                "architecture": MACHINES[os.uname().machine],
                "os": "linux",
                "config": {
                    "User": str(UID),
                    "WorkingDir": HOME,
                    "Env": ["%s=%s" % item for item in ENV.items()],
                    "Cmd": ["/bin/bash"],
                },
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]},
                "history": [{"created_by": "packaging/image.py"}],
            }
        ).encode()
        name = hashlib.sha256(config).hexdigest() + ".json"
        manifest = json.dumps([{"Config": name, "RepoTags": tags, "Layers": ["layer.tar"]}]).encode()
        with tarfile.open(out + ".part", "w") as t:
            for entry, data in (("manifest.json", manifest), (name, config)):
                info = tarfile.TarInfo(entry)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
            t.add(layer, "layer.tar", filter=anonymous)
        os.rename(out + ".part", out)
        return os.path.getsize(layer), packed.size


class Counting(io.RawIOBase):
    """Counts what is written to it."""

    size = 0

    def writable(self):
        return True

    def write(self, data):
        self.size += len(data)
        return len(data)


def anonymous(info):
    """Takes out of a tar entry what differs from build to build."""
    info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
    return info


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheel", required=True, help="the wheel for this machine's architecture")
    parser.add_argument("--out", required=True, help="the image's file")
    parser.add_argument("--tag", default="gray:local", help="the image's name and tag")
    parser.add_argument(
        "--python", help="a minor version, such as 3.12: this machine's own installation of it is taken along"
    )
    parser.add_argument("--notebook", action="store_true", help="add JupyterLab, matplotlib and the examples")
    parser.add_argument("--torch", action="store_true", help="add torch for CPUs (Debian's)")
    parser.add_argument("--cache", default=os.path.expanduser("~/.cache/gray-image"), help="folder for Debian trees")
    args = parser.parse_args()
    if os.getuid() != 0:
        raise SystemExit(
            "image: needs root, for chroot and the files' owners; with a container engine, packaging/Dockerfile does not"
        )
    if args.torch and args.python:
        raise SystemExit("image: --torch brings Debian's torch, which is for Debian's Python: leave --python out")
    if not shutil.which("mmdebstrap"):
        raise SystemExit("image: there is no mmdebstrap: apt-get install mmdebstrap")
    out = os.path.abspath(args.out)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    packages = PACKAGES + (TORCH if args.torch else LIBRARIES if args.python else [])
    if args.python:
        packages = [p for p in packages if not p.startswith("python3")]
    debian = base(args.cache, packages)
    with tempfile.TemporaryDirectory() as tree:
        run("tar", "-C", tree, "--numeric-owner", "--exclude=./dev/*", "-xf", debian)
        python = add_interpreter(tree, args.python) if args.python else "/usr/bin/python3"
        install(tree, python, args.wheel, args.torch, args.notebook)
        if args.notebook:
            furnish(tree)
        finish(tree)
        tags = [args.tag, args.tag + "-py" + minor_of(tree).replace(".", "")]
        size, packed = pack(tree, tags, out)
    print("%s: %s, %.0f MB, %.0f MB compressed" % (args.out, " and ".join(tags), size / 1e6, packed / 1e6))
    largest = LARGEST_NOTEBOOK if args.notebook else LARGEST
    if packed > largest and not args.torch:
        raise SystemExit("image: it is over %d MB compressed" % (largest / 1e6))


if __name__ == "__main__":
    main()
