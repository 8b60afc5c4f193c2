"""Two users on a machine, and two clusters of one user: none sees, stops or joins the other's."""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap

import pytest
from machines import Home, alive

AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def runnable():
    """A Python that the other user may run; ours may lie in a home that is closed to others."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            # By a shell: what setpriv itself starts may still have root's way with files.
            argv = [*AS_NOBODY, "/bin/sh", "-c", '"$0" -c ""', python]
            if subprocess.run(argv, cwd="/", stderr=subprocess.DEVNULL).returncode == 0:
                return python
    return None


@pytest.fixture
def other(binary):
    """Another user's environment, with its own copy of the binary."""
    if os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    try:
        pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("this machine has no user nobody")
    if (python := runnable()) is None:
        pytest.skip("no Python that another user may run")
    folder = tempfile.mkdtemp(prefix="gray-users-")
    os.chmod(folder, 0o755)
    own = shutil.copy(binary, os.path.join(folder, "gray"))
    os.chmod(own, 0o755)
    made = Home(os.path.join(folder, "home"), own, user="nobody")
    made.env["GRAY_PYTHON"] = python
    yield made
    made.close()
    shutil.rmtree(folder)


def modes(root):
    """What others may do with anything below a folder."""
    open_to_others = []
    for path in [root, *root.rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            open_to_others.append((str(path), oct(mode)))
    return open_to_others


@pytest.mark.needs_root
def test_two_users(home, other):
    mine, theirs = home.head(), other.head()
    assert mine["session_dir"] != theirs["session_dir"]
    assert modes(home.root) == [] and modes(other.root) == []
    # They look into our temp dir: told that it is ours, and nothing else happens.
    for command in (["status"], ["stop"], ["stop", "--force"], ["start", "--head", "--port=0"]):
        done = other.ray(*command, env={"RAY_TMPDIR": str(home.temp)}, check=False)
        assert done.returncode != 0 or "Did not find any active Ray processes" in done.stdout, done.stdout
        assert mine["session_name"] not in done.stdout and mine["node_id"] not in done.stdout
    done = other.ray("start", f"--address={mine['gcs_address']}", check=False)
    assert done.returncode != 0 and "token" in done.stdout, done.stdout
    assert alive((mine["pid"], mine["start_time"]))
    other.ray("stop")
    assert alive((mine["pid"], mine["start_time"])) and not alive((theirs["pid"], theirs["start_time"]))


@pytest.mark.needs_root
def test_the_usual_folder_is_anothers(home, other):
    """What /tmp/ray is when another user came first: its owner's; here by --temp-dir, which must be one's own."""
    other.head()
    done = home.ray("start", "--head", "--port=0", f"--temp-dir={other.root}", check=False)
    assert done.returncode != 0 and "belongs to uid" in done.stdout and "--temp-dir" in done.stdout, done.stdout
    done = home.ray("stop", f"--temp-dir={other.root}", check=False)
    assert "belongs to uid" in done.stdout, done.stdout
    assert len(other.nodes()) == 1


@pytest.mark.needs_root
def test_a_foreign_process_on_the_socket(home, other):
    """Even with the folders open, another uid is told nothing."""
    head = home.head()
    for path in (
        home.folder,
        home.temp,
        home.root,
        pathlib.Path(head["session_dir"]),
        pathlib.Path(head["session_dir"]) / "sockets",
    ):
        os.chmod(path, 0o755)
    for parent in home.folder.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and str(parent).startswith(tempfile.gettempdir()):
            os.chmod(parent, 0o755)
    os.chmod(head["socket"], 0o777)
    code = """
        import os, socket, sys
        folder = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
        s = socket.socket(socket.AF_UNIX)
        s.connect(f"/proc/self/fd/{folder}/{os.path.basename(sys.argv[1])}")
        s.settimeout(20)
        print(s.recv(100))
    """
    argv = [*AS_NOBODY, other.env["GRAY_PYTHON"], "-c", textwrap.dedent(code), head["socket"]]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert done.stdout == "b''\n", done.stderr


def test_two_clusters_of_one_user(homes):
    one, two = homes("one"), homes("two")
    first, second = one.head(cpus=1), two.head(cpus=2)
    assert first["session_dir"] != second["session_dir"]
    for home, cpus in ((one, "1.0"), (two, "2.0")):
        out = home.python('import ray; ray.init(configure_logging=False); print(ray.cluster_resources()["CPU"])')
        assert out.strip() == cpus
    # The token is each home's: the first's says nothing to the second.
    done = one.ray("status", f"--address={second['gcs_address']}", check=False)
    assert done.returncode != 0 and second["node_id"] not in done.stdout, done.stdout
    one.ray("stop")
    assert alive((second["pid"], second["start_time"])) and not alive((first["pid"], first["start_time"]))
    two.ray("stop", f"--temp-dir={one.root}")
    assert alive((second["pid"], second["start_time"]))


def test_planted_in_the_temp_dir(home, tmp_path):
    """Symlinks, foreign files and sockets in the temp dir lead nobody anywhere."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "keep").write_text("precious")
    os.symlink(trap, home.root)
    done = home.ray("start", "--head", "--port=0", check=False)
    assert done.returncode != 0 and "symlink" in done.stdout, done.stdout
    assert "symlink" in home.ray("stop", check=False).stdout
    os.unlink(home.root)

    home.root.mkdir(mode=0o700)
    for k in range(12):  # older than all others, so first to be cleaned
        os.symlink(trap, home.root / f"session_2020-01-01_00-00-{k:02}_000000_1")
    os.symlink(trap / "keep", home.root / "ray_current_cluster")
    os.symlink(trap, home.root / "session_latest")
    head = home.head()
    assert (trap / "keep").read_text() == "precious" and os.listdir(trap) == ["keep"]
    assert os.readlink(home.root / "session_latest") == head["session_dir"]
    assert (
        home.python(
            'import ray; ray.init("auto", configure_logging=False); print(ray.get(ray.remote(lambda: 2).remote()))'
        )
        == "2\n"
    )

    # A node file that names another's process, and a socket of somebody who waits for tokens.
    nodes = pathlib.Path(head["session_dir"]) / "nodes"
    spy = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    spy.bind("spy")
    spy.listen()
    forged = {**head, "node_id": "ff" * 28, "pid": os.getpid(), "start_time": 1, "socket": str(tmp_path / "spy")}
    (nodes / f"{'ff' * 28}.json").write_text(json.dumps(forged))
    out = home.python(
        'import ray; ray.init("auto", configure_logging=False); print(ray.get(ray.remote(lambda: 2).remote()))'
    )
    assert out == "2\n"
    home.ray("stop")
    assert not alive((head["pid"], head["start_time"]))
    spy.settimeout(0)
    with contextlib.closing(spy), pytest.raises(BlockingIOError):
        spy.accept()


def test_a_session_of_another_users_folder(home):
    """A head makes its folders closed to others, whatever the umask."""
    before = os.umask(0)
    try:
        head = home.head()
    finally:
        os.umask(before)
    assert modes(home.root) == []
    assert os.stat(head["socket"]).st_mode & 0o777 == 0o600
    assert os.stat(head["token_file"]).st_mode & 0o777 == 0o600
