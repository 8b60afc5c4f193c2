"""Which cluster an address means, and how a process on this machine gets into it.

Each node daemon of this user leaves a file in ``<root>/session_*/nodes/``. Only files and folders that belong to this
user, and no symbolic links, are believed: anybody may write to /tmp.
"""

import json
import os
import socket
import stat
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

Node = Dict[str, Any]

NO_CLUSTER = (
    "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag or "
    "`RAY_ADDRESS` environment variable."
)

_POLL_S = 0.05
_APPEAR_S = 2.0  # a daemon that is just starting is waited for


def root_dir(temp_dir: Optional[str] = None) -> str:
    """The folder of sessions: ``temp_dir``, else ``$RAY_TMPDIR/ray``, else /tmp/ray, or /tmp/ray-<uid> where that is another user's."""
    if temp_dir:
        return os.path.abspath(temp_dir)
    if os.environ.get("RAY_TMPDIR"):
        return os.path.join(os.environ["RAY_TMPDIR"], "ray")
    root = "/tmp/ray"
    try:
        if os.lstat(root).st_uid != os.getuid():
            return f"{root}-{os.getuid()}"
    except FileNotFoundError:
        pass
    return root


def current_cluster(root: str) -> Optional[str]:
    """The address that the last ``ray start`` on this machine wrote down, if its node still lives."""
    text = _read_own(os.path.join(root, "ray_current_cluster"))
    address = (text or "").strip()
    if address and any(True for _ in nodes_of(root, address)):
        return address
    return None


def split(address: str) -> Tuple[str, int]:
    """Split ``host:port``.

    Raises:
        ValueError: ``address`` has another form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"Invalid address format: {address}")
    try:
        number = int(port)
    except ValueError:
        raise ValueError(f"Unable to parse port number from {port} (full address = {address})") from None
    if not 0 < number < 65536:
        raise ValueError(f"The port of an address lies between 1 and 65535 (full address = {address})")
    return host.strip("[]"), number


def find_node(root: str, address: str, node_ip: Optional[str] = None) -> Node:
    """The node daemon of this machine that belongs to the cluster at ``address``.

    Args:
        root: The folder of sessions.
        address: The head's ``host:port``.
        node_ip: Which node to take, where several of the cluster run here; None prefers the head, then the address's host.

    Raises:
        ValueError: ``address`` is not ``host:port``.
        ConnectionError: There is no such daemon; the text says whether the cluster answers.
    """
    node = look_for_node(root, address, node_ip)
    if node is None:
        check_answers(address)
        raise ConnectionError(
            f"Failed to connect to Ray cluster at {address}: it answers, but no node of it runs on this machine under "
            f"{root}. Start one with `ray start --address={address}`, or connect with address='ray://…'."
        )
    return node


def look_for_node(
    root: str, address: str, node_ip: Optional[str] = None, patience_s: float = _APPEAR_S
) -> Optional[Node]:
    """As :func:`find_node`, but None where there is no such daemon after so many seconds."""
    host, _ = split(address)
    deadline = time.monotonic() + patience_s
    asked = False
    while True:
        found = [n for n in nodes_of(root, address) if node_ip is None or n.get("node_ip") == node_ip]
        if found:
            return min(found, key=lambda n: (not n.get("head"), n.get("node_ip") != host))
        if not asked and any(_for_all(n) for n in all_nodes(root)):
            asked = True
            address = _known_as(root, address) or address
            continue
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_S)  # the file's folder may not exist yet, so there is nothing to watch


def check_answers(address: str) -> None:
    """Check that somebody listens at ``address``.

    Raises:
        ConnectionError: Nobody does, or the way there is barred.
    """
    why = _answers(*split(address))
    if why is None:
        return
    if in_pod():
        hint = (
            "Check with `kubectl get pods` that the head's pod is ready; ray.init(address='local') starts a cluster in "
            "this pod alone."
        )
    else:
        hint = "Check that `ray start --head` runs there and that the address is the one that it printed."
    raise ConnectionError(f"Failed to connect to Ray cluster at {address}: {why}. {hint}")


def in_pod() -> bool:
    """Whether this process runs in a pod of a Kubernetes cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def service_address() -> Optional[str]:
    """The head's address where Kubernetes tells this pod of a Service ``ray-head``."""
    host = os.environ.get("RAY_HEAD_SERVICE_HOST")
    if not host or not in_pod():
        return None
    ports = (os.environ.get(f"RAY_HEAD_SERVICE_PORT_{name}") for name in ("REDIS_PRIMARY", "GCS_SERVER"))
    port = next(filter(None, ports), "6379")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _for_all(node: Node) -> bool:
    """Whether a node is there for all programs of this user, and not for the one that started it alone."""
    return not (node.get("private") or node.get("guest"))


def _known_as(root: str, address: str) -> Optional[str]:
    """The address by which a node of this machine knows the cluster at ``address``, a Service in front of it, say."""
    import subprocess

    from ray import _daemon

    command = [_daemon.binary(), "node-at", "--address", address, "--temp-dir", root]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode().strip() if done.returncode == 0 else None


def _answers(host: str, port: int) -> Optional[str]:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError as e:
        return e.strerror or str(e)
    return None


def nodes_of(root: str, address: str) -> Iterator[Node]:
    """The living node daemons of this user and machine whose cluster is at ``address`` (``host:port``)."""
    host, port = split(address)
    hosts = _same_host(host)
    loopback = any(h.startswith("127.") or h == "::1" for h in hosts)
    near: List[Node] = []
    for node in all_nodes(root):
        try:
            its_host, its_port = split(str(node.get("gcs_address", "")))
        except ValueError:
            continue
        if its_port != port or node.get("guest"):
            continue
        if its_host in hosts:
            yield node
        elif loopback and node.get("head"):
            near.append(node)  # the head of this machine, called by one of its other names
    yield from near


def ip_of(host: str) -> str:
    """The address of a machine that is named by host name or address.

    Raises:
        ValueError: Nobody knows the name.
    """
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as e:
        raise ValueError(
            f"The node address {host!r} is no address, and no host of that name is known: {e.strerror}"
        ) from None
    return str(min(infos, key=lambda info: info[0] != socket.AF_INET)[4][0])


def _same_host(host: str) -> List[str]:
    try:
        return [host, *{str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}]
    except OSError:
        return [host]


def all_nodes(root: str) -> Iterator[Node]:
    """The living node daemons below ``root``, newest session first."""
    if not _own(root, stat.S_ISDIR):
        return
    for session in sorted((e for e in os.listdir(root) if e.startswith("session_2")), reverse=True):
        folder = os.path.join(root, session, "nodes")
        if not (_own(os.path.dirname(folder), stat.S_ISDIR) and _own(folder, stat.S_ISDIR)):
            continue
        for name in sorted(os.listdir(folder)):
            text = _read_own(os.path.join(folder, name)) if name.endswith(".json") else None
            if not text:
                continue
            try:
                node = json.loads(text)
            except ValueError:
                continue  # no daemon of ours writes such a file
            if isinstance(node, dict) and lives(node.get("pid"), node.get("start_time")):
                yield node


def _own(path: str, kind) -> bool:
    try:
        st = os.lstat(path)
    except OSError:
        return False
    return kind(st.st_mode) and st.st_uid == os.getuid()


def _read_own(path: str) -> Optional[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as f:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_uid != os.getuid():
            return None
        return f.read(1 << 20).decode("utf-8", "replace")


def start_time(pid: int) -> Optional[int]:
    """When a process started, in clock ticks since boot; None if there is no such process, or it has ended as a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def lives(pid, started) -> bool:
    """Whether the process with this id still is the one that started then."""
    return isinstance(pid, int) and started is not None and start_time(pid) == started


def token(node: Node) -> str:
    """The cluster's token, as this process may know it.

    Looked for in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, in the file that the node names, and in
    ~/.ray/auth_token. A private cluster has a token of its own, which stands in the node's file only. With
    RAY_AUTH_MODE=disabled it is empty.

    Raises:
        AuthenticationError: There is none, or its file can't be read.
    """
    from ray.exceptions import AuthenticationError

    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return ""
    if not node.get("private"):
        if os.environ.get("RAY_AUTH_TOKEN"):
            return os.environ["RAY_AUTH_TOKEN"].strip()
        if os.environ.get("RAY_AUTH_TOKEN_PATH"):
            path = os.environ["RAY_AUTH_TOKEN_PATH"]
            try:
                with open(path, encoding="utf-8") as f:
                    return f.read().strip()
            except OSError as e:
                raise AuthenticationError(
                    f"RAY_AUTH_TOKEN_PATH names {path}, which can't be read: {e.strerror}"
                ) from None
    tried = []
    for file in (node.get("token_file"), os.path.expanduser("~/.ray/auth_token")):
        if file:
            text = _read_own(file)
            if text and text.strip():
                return text.strip()
            tried.append(file)
    raise AuthenticationError(f"No token for the cluster at {node.get('gcs_address')}: none in {' and '.join(tried)}")
