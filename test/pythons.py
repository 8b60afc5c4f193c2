"""Runs the Python tests under every Python that Gray supports, each in a virtual environment with the wheel.

    python test/pythons.py --venvs .cache/venvs [--versions 3.9 3.13] [-- -k name]

An interpreter is looked for as python3.N on PATH, in /usr/bin and among pyenv's. Exit status 1 if tests fail under any
of them, or if there is none at all; versions that this machine does not have are named and left out.
"""

import argparse
import glob
import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSIONS = ["3.9", "3.10", "3.11", "3.12", "3.13"]
REQUIREMENTS = os.path.join(ROOT, "python", "requirements-dev.txt")
# what only the checks of the sources need, or has no wheel for every version
UNWANTED = ("ruff",)


def say(text):
    print("pythons: " + text, flush=True)


def find(version):
    """Returns the path of an interpreter of a minor version that works, or None."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    candidates = [shutil.which("python" + version), "/usr/bin/python" + version]
    candidates += sorted(glob.glob(os.path.join(pyenv, "versions", version + ".*", "bin", "python")), reverse=True)
    for path in candidates:
        if path and os.path.exists(path):
            ask = [path, "-c", "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"]
            ran = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if ran.returncode == 0 and ran.stdout.strip() == version:  # pyenv's shims exist for versions that are off
                return path
    return None


def venv(python, folder, wheel):
    """Makes or renews a virtual environment with the tests' requirements and the wheel; returns its interpreter."""
    with open(REQUIREMENTS, encoding="utf-8") as f:
        wanted = "".join(line for line in f if not line.startswith(UNWANTED))
    mark = hashlib.sha256((os.path.realpath(python) + wanted).encode()).hexdigest()
    stamp, mine = os.path.join(folder, ".made"), os.path.join(folder, "bin", "python")
    pip = [mine, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    made = ""
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as f:
            made = f.read()
    if made != mark:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        listed = os.path.join(folder, "requirements.txt")
        with open(listed, "w", encoding="utf-8") as f:
            f.write(wanted)
        subprocess.run([*pip, "-r", listed], check=True)
        with open(stamp, "w", encoding="utf-8") as f:
            f.write(mark)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", wheel], check=True)
    return mine


def build(folder):
    """Builds this machine's wheel and returns its path."""
    shutil.rmtree(folder, ignore_errors=True)
    builder = os.path.join(ROOT, "packaging", "graywheel.py")
    subprocess.run([sys.executable, builder, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    (wheel,) = glob.glob(os.path.join(folder, "*.whl"))
    return wheel


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venvs", required=True, help="folder for the virtual environments, kept from run to run")
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    args = parser.parse_args()

    folder = os.path.abspath(args.venvs)
    wheel = build(os.path.join(folder, "wheel"))
    interpreters, absent = {}, []
    for version in args.versions:
        python = find(version)
        if python is None:
            absent.append(version)
            say("there is no Python %s here with venv and ensurepip: left out" % version)
            continue
        interpreters[version] = venv(python, os.path.join(folder, version), wheel)
    if not interpreters:
        sys.exit("pythons: none of %s is here" % ", ".join(args.versions))

    results = {}
    order = list(interpreters)
    for i, version in enumerate(order):
        python, other = interpreters[version], interpreters[order[i - 1]]
        env = dict(os.environ, GRAY_TEST_DAEMON="1", GRAY_OTHER_PYTHONS=other if other != python else "")
        for name in ("GRAY_BIN", "GRAY_PYTHON", "PYTHONPATH"):
            env.pop(name, None)
        say("Python %s" % version)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not soak", *args.pytest]
        results[version] = subprocess.run([*command, "python/tests"], cwd=ROOT, env=env).returncode
    for version, status in results.items():
        say("Python %s %s" % (version, "passed" if status == 0 else "FAILED (pytest ended with status %d)" % status))
    if absent:
        say("left out: " + ", ".join(absent))
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
