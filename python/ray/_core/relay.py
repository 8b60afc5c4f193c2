"""A cluster far away: the process beside this one that connects it there, and whose sockets are a node daemon's for us."""

from __future__ import annotations

import os
import socket

from ray import _daemon


class Relay:
    """Connects this process to the daemon at an address, over one TCP connection. It is used as a daemon's socket path is."""

    def __init__(self, address: str, token: str, source: str):
        """Start it, and wait until it is connected.

        Args:
            address: ``host:port`` of the cluster's client port.
            token: The cluster's token.
            source: Where that was found, for errors.

        Raises:
            ConnectionError, RuntimeError, AuthenticationError: Nobody answers, or the cluster refuses this process.
        """
        from ray._address import start_time

        self.address = address
        self.token = token
        pid = os.getpid()
        config = {
            "address": address,
            "token": token,
            "token_source": source,
            "driver_pid": pid,
            "driver_start_time": start_time(pid),
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        try:
            with theirs:
                self._process = _daemon.start(
                    config, command="client-relay", control=theirs.fileno(), error=self._error
                )
        except BaseException:
            ours.close()
            raise

    def _error(self, kind: str, text: str) -> Exception:
        if kind == "auth":
            from ray.exceptions import AuthenticationError

            return AuthenticationError(f"{text}. {GET_TOKEN}")
        if kind in ("version", "python"):
            return RuntimeError(text)
        return ConnectionError(
            f"Could not connect to a Ray cluster at ray://{self.address}: {text}. Check that the head runs and that this "
            "is its port for clients: 10001, or what `ray start --ray-client-server-port` chose; on Kubernetes, that "
            "`kubectl port-forward` or `ray kube connect` still runs."
        )

    def open(self) -> socket.socket:
        """A connection to the daemon.

        Raises:
            ConnectionError: The session is over.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
        except OSError as e:
            ours.close()
            raise ConnectionError(
                f"The connection to the cluster at ray://{self.address} is over ({e.strerror or e}); after ray.shutdown(), "
                "ray.init() makes another."
            ) from e
        return ours

    def stop(self) -> None:
        """Let it end once the cluster has all that was sent; the connections are closed by now."""
        self._control.close()
        self._process.leave()

    def abandon(self) -> None:
        """In a forked child: close what is the parent's."""
        self._control.close()


GET_TOKEN = (
    "`ray get-auth-token` on the head prints the cluster's token; on Kubernetes, `kubectl exec deploy/ray-head -- ray "
    "get-auth-token`, and `ray kube connect` brings it."
)


def start(address: str) -> Relay:
    """Connect to the cluster whose port for clients is at ``address``, with the token of this user's environment.

    Raises:
        ValueError: ``address`` is not ``host:port``.
        AuthenticationError: There is no token, or it is another cluster's.
        ConnectionError, RuntimeError: As Relay.
    """
    from ray import _address
    from ray.exceptions import AuthenticationError

    host, colon, _ = address.rpartition(":")
    if not colon or not host:
        address = f"{address}:10001"
    _address.split(address)
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return Relay(address, "disabled", "RAY_AUTH_MODE")
    try:
        token = _address.token({"gcs_address": f"ray://{address}"})
    except AuthenticationError as e:
        raise AuthenticationError(f"{e.message.rstrip('. ')}. {GET_TOKEN}") from None
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return Relay(address, token, name)
    return Relay(address, token, "~/.ray/auth_token")
