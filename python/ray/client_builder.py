"""``ray.client``: connections to a cluster from afar. The names; the connection is not there yet."""

from typing import Any, Dict, Optional

from ray._missing import missing

__all__ = ["ClientBuilder", "ClientContext", "client"]


class ClientContext:
    """A connection made by :class:`ClientBuilder`. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing("Ray Client (ray://)")

    def disconnect(self) -> None:
        """End the connection."""
        raise missing("Ray Client (ray://)")


class ClientBuilder:
    """Collects the settings of a connection.

    Args:
        address: ``ray://host:port``.

    Raises:
        RuntimeError: An address of another scheme.
    """

    def __init__(self, address: Optional[str]):
        scheme = (address or "ray://").split("://", 1)[0] if "://" in (address or "ray://") else "ray"
        if scheme != "ray":
            raise RuntimeError(f"Module: {scheme} does not exist.\nThis module was parsed from Address: {address}")
        self.address = address
        self._job: Dict[str, Any] = {}

    def env(self, env: Dict[str, Any]) -> "ClientBuilder":
        """Set the runtime environment."""
        self._job["runtime_env"] = env
        return self

    def namespace(self, namespace: str) -> "ClientBuilder":
        """Set the scope of actors' names."""
        self._job["namespace"] = namespace
        return self

    def connect(self):
        """Connect. Not there yet."""
        raise missing(f"Ray Client (address={self.address!r})")


def client(address: Optional[str] = None, _deprecation_warn_enabled: bool = True) -> ClientBuilder:
    """A builder of a connection to ``address``."""
    return ClientBuilder(address)
