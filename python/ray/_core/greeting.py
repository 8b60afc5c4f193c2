"""The first words on a connection: HELLO and what comes back."""

from __future__ import annotations

import os
import socket
import sys

from ray._core import wire

_TIMEOUT = 5.0  # seconds that a daemon has for WELCOME
_TRIES = 3


class _HungUp(ConnectionError):
    # The daemon closed the connection without a word.
    pass


def dial(path, role: str, key: bytes, **fields):
    """Connect to a daemon and greet it. Its path is that of a Unix socket, or the Relay that stands for one.

    A daemon gives a connection some seconds to speak. This process may get no CPU for longer than that on a machine with
    much to do; then it tries again.

    Returns:
        (socket, welcome map, arena descriptor or None).

    Raises:
        ConnectionError, RuntimeError, AuthenticationError: Nobody listens, or the daemon refused.
    """
    import msgpack  # noqa: F401 (before the connection is made, for the daemon's patience)

    tries = _TRIES
    while True:
        tries -= 1
        sock = open_socket(path)
        try:
            return (sock, *greet(sock, role, key, **fields))
        except _HungUp:
            sock.close()
            if not tries:
                raise
        except BaseException:
            sock.close()
            raise


def open_socket(path) -> socket.socket:
    """Connect to a Unix socket whose path may be longer than the kernel's 107 bytes.

    Raises:
        ConnectionError: Nobody listens there.
    """
    if type(path) is not str:
        return path.open()  # a relay
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            if len(os.fsencode(path)) <= 107:
                sock.connect(path)
            else:
                folder, name = os.path.split(path)
                fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    sock.connect(f"/proc/self/fd/{fd}/{name}")
                finally:
                    os.close(fd)
        except OSError as e:
            raise ConnectionError(
                f"Could not connect to the node daemon at {path}: {e.strerror or e}. Is the cluster still running? "
                "`ray status` tells; `ray start` starts one."
            ) from e
    except BaseException:
        sock.close()
        raise
    return sock


def credential(key: bytes, nonce: bytes) -> bytes:
    """HMAC-SHA256(key, "gray-client-v1" | nonce). Made here since importing hmac would load OpenSSL."""
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256
    if len(key) > 64:
        key = sha256(key).digest()
    key = key.ljust(64, b"\x00")
    inner = sha256(bytes(b ^ 0x36 for b in key) + b"gray-client-v1" + nonce).digest()
    return sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


def greet(sock, role: str, key: bytes, *, version: str, want_fd: bool = False, **fields):
    """Say HELLO and read the answer.

    Returns:
        (welcome map, arena descriptor or None).

    Raises:
        ConnectionError, RuntimeError, AuthenticationError: As the daemon refused.
    """
    import msgpack

    nonce = os.urandom(16)
    hello = {
        "role": role,
        "py": "%d.%d" % sys.version_info[:2],
        "ray": version,
        "pid": os.getpid(),
        "nonce": nonce,
        "cred": credential(key, nonce),
        **fields,
    }
    body = b"GRAY" + wire.PROTOCOL.to_bytes(2, "little") + msgpack.packb(hello)
    sock.settimeout(_TIMEOUT)
    fds = []
    try:
        sock.sendall(wire.frame(wire.HELLO, body))
        data = b""
        while len(data) < 4 or len(data) < 4 + wire.u32(data)[0]:
            if want_fd and not fds:
                data += _receive_with_fd(sock, fds)
            else:
                more = sock.recv(65536 if len(data) < 4 else 4 + wire.u32(data)[0] - len(data))
                if not more:
                    raise ConnectionResetError("it closed the connection without a word")
                data += more
    except OSError as e:
        for fd in fds:
            os.close(fd)
        reason = "no answer within 5 s" if isinstance(e, socket.timeout) else (e.strerror or str(e))
        raise (ConnectionError if isinstance(e, socket.timeout) else _HungUp)(
            f"The node daemon did not accept this process: {reason}. The socket may belong to another program or another "
            "user; raylet.err in the session's logs directory tells what the daemon saw."
        ) from e
    length = wire.u32(data)[0]
    kind = data[4]
    answer = msgpack.unpackb(data[5 : 4 + length], strict_map_key=False)
    if kind == wire.WELCOME:
        sock.settimeout(None)
        return answer, (fds[0] if fds else None)
    for fd in fds:
        os.close(fd)
    if kind != wire.REFUSED:
        raise ConnectionError(
            f"The node daemon answered HELLO with a frame of kind 0x{kind:02x}: it speaks another protocol."
        )
    raise refusal(answer)


def _receive_with_fd(sock, fds):
    import array

    data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            got = array.array("i")
            got.frombytes(raw[: len(raw) // 4 * 4])
            fds.extend(got)
    if not data:
        raise ConnectionResetError("it closed the connection without a word")
    return data


def refusal(answer: dict) -> Exception:
    """The error that a REFUSED frame stands for."""
    kind, error = answer.get("kind"), str(answer.get("error", ""))
    if kind in ("version", "python"):
        return RuntimeError(error)
    if kind == "auth":
        from ray import exceptions

        return exceptions.AuthenticationError(error)
    return ConnectionError(error)
