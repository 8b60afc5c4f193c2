"""``ray.client``: connections to a cluster from afar, also by ``ray.init("ray://host:port")``."""

import sys
import warnings
from typing import Any, Dict, Optional

__all__ = ["ClientBuilder", "ClientContext", "client"]


class ClientContext:
    """A connection to a cluster far away, and a context manager that ends it.

    Attributes:
        dashboard_url: ``host:port`` of the cluster's dashboard, as seen from the cluster; empty without one.
        python_version: Version of this interpreter, whose minor version the cluster has, too.
        ray_version: Version of this package, and the cluster's.
        ray_commit: Commit that it was built from.
        protocol_version: Version of what client and cluster say to each other.
    """

    def __init__(
        self,
        dashboard_url: Optional[str],
        python_version: str,
        ray_version: str,
        ray_commit: str,
        _num_clients: int,
        _context_to_restore: Any = None,
        protocol_version: str = "",
    ):
        self.dashboard_url = dashboard_url
        self.python_version = python_version
        self.ray_version = ray_version
        self.ray_commit = ray_commit
        self.protocol_version = protocol_version
        self._num_clients = _num_clients
        self._context_to_restore = _context_to_restore
        self._client = None
        self._fields: Optional[Dict[str, Any]] = None  # of one that was made with allow_multiple

    @classmethod
    def _connected(cls, state) -> "ClientContext":
        from ray._commit import commit
        from ray._core import wire
        from ray._init import dashboard_url
        from ray._version import version

        context = cls(
            dashboard_url(None),
            ".".join(map(str, sys.version_info[:3])),
            version,
            commit,
            state.client.clients or 1,
            protocol_version=str(wire.PROTOCOL),
        )
        context._client = state.client
        return context

    def __enter__(self) -> "ClientContext":
        if self._fields is not None:
            from ray._core import contexts

            contexts.enter(self._fields)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._fields is not None:  # it may be entered again: it ends by disconnect()
            from ray._core import contexts

            contexts.leave()
        else:
            self.disconnect()

    def disconnect(self) -> None:
        """End this connection; once that is done, or another took its place, nothing happens."""
        from ray import _core, shutdown
        from ray._init import end_one

        if self._fields is not None:
            end_one(self)
        elif self._client is not None and _core.state.client is self._client:
            self._client = None
            shutdown()

    def __repr__(self) -> str:
        return (
            f"ClientContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, ray_commit={self.ray_commit!r}, _num_clients={self._num_clients!r})"
        )

    def _repr_html_(self) -> str:
        rows = {"Python version": self.python_version, "Ray version": self.ray_version, "Dashboard": self.dashboard_url}
        return (
            "<table>" + "".join(f"<tr><td><b>{k}:</b></td><td>{v}</td></tr>" for k, v in rows.items() if v) + "</table>"
        )


class ClientBuilder:
    """Collects the settings of a connection.

    Args:
        address: ``host:port`` of a cluster's port for clients, with or without ``ray://``; "local": a new cluster on this
            machine; None: as ``ray.init()``.

    Raises:
        RuntimeError: An address of another scheme.
    """

    def __init__(self, address: Optional[str]):
        from ray._init import client_address

        self.address = address
        if address and "://" in address:
            client_address(address)
        elif address and address != "local":
            self.address = f"ray://{address}"
        self._given: Dict[str, Any] = {}

    def env(self, env: Dict[str, Any]) -> "ClientBuilder":
        """Set the runtime environment."""
        self._given["runtime_env"] = env
        return self

    def namespace(self, namespace: str) -> "ClientBuilder":
        """Set the scope of actors' names."""
        self._given["namespace"] = namespace
        return self

    def connect(self) -> ClientContext:
        """Connect.

        Raises:
            ConnectionError, RuntimeError, AuthenticationError: As ``ray.init``.
        """
        import ray
        from ray import _core

        context = ray.init(self.address or None, **self._given)
        return context if isinstance(context, ClientContext) else ClientContext._connected(_core.state)


def client(address: Optional[str] = None, _deprecation_warn_enabled: bool = True) -> ClientBuilder:
    """A builder of a connection to ``address``."""
    builder = ClientBuilder(address)
    if _deprecation_warn_enabled:
        target = "" if builder.address is None else repr(builder.address)
        warnings.warn(
            "Starting a connection through `ray.client` will be deprecated in future ray versions in favor of `ray.init`. "
            f"You can replace your call to `ray.client().connect()` with `ray.init({target})`.",
            DeprecationWarning,
            stacklevel=2,
        )
    return builder
