"""Builds the wheels: the PEP 517 and PEP 660 backend that pyproject.toml names, and what ``make wheel`` runs.

A wheel is the Python files below ``python/ray``, the static Go binary for one Linux architecture at ``ray/_bin/ray``,
and the ``ray`` launcher. The backend needs nothing but the standard library and a Go toolchain, so building one
downloads no build requirement. The same sources give the same bytes.
"""

import argparse
import base64
import csv
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = os.path.join(ROOT, "python")
PACKAGE = os.path.join(PYTHON, "ray")
LAUNCHER = os.path.join(ROOT, "packaging", "launcher.py")

NAME = "ray"
REQUIRES = ["cloudpickle>=3.0", "msgpack>=1.0.3"]
REQUIRES_PYTHON = ">=3.9"
SUMMARY = (
    "Gray: Ray's Python API and command on an engine of its own, written in Go. This is not the Ray project's wheel."
)

# A static binary needs no C library: the tag only says "glibc Linux", the oldest that today's pips all know.
PLATFORMS = {
    "amd64": "manylinux_2_17_x86_64.manylinux2014_x86_64",
    "arm64": "manylinux_2_17_aarch64.manylinux2014_aarch64",
}
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest a zip can say; a build's own time would make two builds differ


def version():
    """Returns the version that ``python/ray/_version.py`` states."""
    path = os.path.join(PACKAGE, "_version.py")
    with open(path, encoding="utf-8") as f:
        found = re.search(r'^version = "([^"]+)"$', f.read(), re.M)
    if not found:
        raise SystemExit('%s: no line version = "…"; the wheel needs one' % path)
    return found.group(1)


def host_arch():
    """Returns this machine's architecture as Go spells it."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise SystemExit("cannot build a wheel for %s: Gray runs on x86_64 and aarch64" % machine)
    return MACHINES[machine]


def build_binary(arch, out):
    """Builds the static Go binary.

    Args:
        arch: ``amd64`` or ``arm64``.
        out: Path of the binary to write. It is put there by rename, so a running one is never overwritten.

    Raises:
        SystemExit: There is no Go toolchain, or the build failed.
    """
    os.makedirs(os.path.dirname(out), exist_ok=True)
    fresh = "%s.%d" % (out, os.getpid())
    env = dict(os.environ, CGO_ENABLED="0", GOOS="linux", GOARCH=arch)
    cmd = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh, "./cmd/ray"]
    try:
        subprocess.run(cmd, cwd=ROOT, env=env, check=True)
        os.replace(fresh, out)
    except FileNotFoundError:
        raise SystemExit("building the daemon needs Go 1.26 or later on PATH: there is no `go`") from None
    except subprocess.CalledProcessError as e:
        raise SystemExit(
            "building the daemon failed: `%s` ended with status %d" % (" ".join(cmd), e.returncode)
        ) from None
    finally:
        if os.path.exists(fresh):
            os.unlink(fresh)


def sources():
    """Yields (name in the wheel, path) of each file of the package, without the binary, in a fixed order."""
    for folder, dirs, files in os.walk(PACKAGE):
        dirs[:] = sorted(d for d in dirs if d not in ("__pycache__", "_bin"))
        for name in sorted(files):
            if not name.endswith((".pyc", ".pyo", "~")) and not name.startswith("."):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, PYTHON).replace(os.sep, "/"), path


def metadata():
    """Returns the text of METADATA."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        readme = f.read()
    head = [
        ("Metadata-Version", "2.1"),
        ("Name", NAME),
        ("Version", version()),
        ("Summary", SUMMARY),
        ("License", "Apache-2.0"),
        ("Keywords", "ray gray distributed parallel tasks actors"),
        ("Requires-Python", REQUIRES_PYTHON),
        ("Classifier", "Operating System :: POSIX :: Linux"),
        ("Classifier", "Programming Language :: Python :: 3"),
        ("Classifier", "Typing :: Typed"),
    ]
    head += [("Requires-Dist", r) for r in REQUIRES]
    head += [("License-File", "LICENSE"), ("Description-Content-Type", "text/markdown")]
    return "".join("%s: %s\n" % kv for kv in head) + "\n" + readme


class _Wheel:
    """One wheel being written; ``RECORD`` is made at the end."""

    def __init__(self, directory, tag):
        self.dist_info = "%s-%s.dist-info" % (NAME, version())
        self.data = "%s-%s.data" % (NAME, version())
        self.tag = tag
        self.filename = "%s-%s-%s.whl" % (NAME, version(), tag)
        self.path = os.path.join(directory, self.filename)
        self.fresh = "%s.%d" % (self.path, os.getpid())
        self.record = []
        self.zip = zipfile.ZipFile(self.fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=9)

    def add(self, name, data, mode=0o644):
        info = zipfile.ZipInfo(name, ZIP_TIME)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.create_system = 3  # Unix: installers read the mode
        info.external_attr = (stat.S_IFREG | mode) << 16
        self.zip.writestr(info, data, compresslevel=9)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self.record.append((name, "sha256=" + digest, str(len(data))))

    def add_file(self, name, path, mode=0o644):
        with open(path, "rb") as f:
            self.add(name, f.read(), mode)

    def close(self):
        """Adds the metadata and puts the wheel in its place; returns its file name."""
        self.add_file(self.data + "/scripts/ray", LAUNCHER, 0o755)
        self.add_file(self.dist_info + "/licenses/LICENSE", os.path.join(ROOT, "LICENSE"))
        self.add(self.dist_info + "/METADATA", metadata().encode())
        tags = ["Tag: py3-none-%s\n" % p for p in self.tag.split("-")[2].split(".")]
        lines = "Wheel-Version: 1.0\nGenerator: graywheel\nRoot-Is-Purelib: false\n" + "".join(tags)
        self.add(self.dist_info + "/WHEEL", lines.encode())
        self.record.append((self.dist_info + "/RECORD", "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.record)
        info = zipfile.ZipInfo(self.dist_info + "/RECORD", ZIP_TIME)
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        self.zip.writestr(info, text.getvalue())
        self.zip.close()
        os.replace(self.fresh, self.path)
        return self.filename


def make_wheel(directory, arch):
    """Builds a whole wheel for one architecture into ``directory``; returns its file name."""
    os.makedirs(directory, exist_ok=True)
    wheel = _Wheel(directory, "py3-none-" + PLATFORMS[arch])
    for name, path in sources():
        wheel.add_file(name, path)
    with tempfile.TemporaryDirectory() as scratch:
        binary = os.path.join(scratch, "ray")
        build_binary(arch, binary)
        wheel.add_file("ray/_bin/ray", binary, 0o755)
    return wheel.close()


def make_editable(directory):
    """Builds a wheel that only points at this checkout; returns its file name. The binary is built beside the sources."""
    build_binary(host_arch(), os.path.join(PACKAGE, "_bin", "ray"))
    wheel = _Wheel(directory, "py3-none-" + PLATFORMS[host_arch()])
    wheel.add("__editable__.ray.pth", (PYTHON + "\n").encode())
    return wheel.close()


# What pip calls.


def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return make_wheel(wheel_directory, os.environ.get("GOARCH") or host_arch())


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return make_editable(wheel_directory)


def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit("Gray has no source distribution: build a wheel from a clone with `make wheel`")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=os.path.join(ROOT, "dist"), help="folder for the wheels")
    parser.add_argument("--arch", nargs="+", choices=sorted(PLATFORMS), default=[host_arch()])
    parser.add_argument("--binary", action="store_true", help="build only the binary, beside the Python sources")
    parser.add_argument("--max-mb", type=float, default=20, help="fail if a wheel is larger, in MB")
    args = parser.parse_args()
    if args.binary:
        build_binary(host_arch(), os.path.join(PACKAGE, "_bin", "ray"))
        return 0
    for arch in args.arch:
        path = os.path.join(args.out, make_wheel(args.out, arch))
        mb = os.path.getsize(path) / 1e6
        print("%s  %.1f MB" % (os.path.relpath(path), mb))
        if mb > args.max_mb:
            print("%s is larger than %g MB" % (path, args.max_mb), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
