"""The cluster's key-value store, for libraries on top of Ray. Keys and values are bytes."""

from typing import List, Optional, Union

from ray import _core

Bytes = Union[bytes, str]


def _bytes(value: Bytes) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"keys and values of the key-value store are bytes, got {type(value)}")
    return value


def _namespace(namespace: Optional[Bytes]) -> bytes:
    return b"" if namespace is None else _bytes(namespace)


def _internal_kv_initialized() -> bool:
    return _core.state.client is not None


def _internal_kv_get(key: Bytes, *, namespace: Optional[Bytes] = None) -> Optional[bytes]:
    return _core.call("kv_get", ns=_namespace(namespace), key=_bytes(key)).get("value")


def _internal_kv_exists(key: Bytes, *, namespace: Optional[Bytes] = None) -> bool:
    return bool(_core.call("kv_exists", ns=_namespace(namespace), key=_bytes(key))["exists"])


def _internal_kv_put(key: Bytes, value: Bytes, overwrite: bool = True, *, namespace: Optional[Bytes] = None) -> bool:
    """Store a value; returns whether the key had one already."""
    answer = _core.call("kv_put", ns=_namespace(namespace), key=_bytes(key), value=_bytes(value), overwrite=overwrite)
    return not answer["added"]


def _internal_kv_del(key: Bytes, *, del_by_prefix: bool = False, namespace: Optional[Bytes] = None) -> int:
    """Delete a key, or all keys that begin with it; returns how many there were."""
    return int(_core.call("kv_del", ns=_namespace(namespace), key=_bytes(key), by_prefix=del_by_prefix)["deleted"])


def _internal_kv_list(prefix: Bytes, *, namespace: Optional[Bytes] = None) -> List[bytes]:
    return list(_core.call("kv_list", ns=_namespace(namespace), prefix=_bytes(prefix))["keys"])
