"""Node labels and label selectors: their syntax, which is that of Kubernetes labels."""

import re
from typing import Dict

_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
_PREFIX = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?)*")

_SHAPE = (
    "63 chars or less beginning and ending with an alphanumeric character ([a-z0-9A-Z]) with dashes (-), underscores (_),"
    "dots (.), and alphanumerics between."
)


def check_key(key: str) -> None:
    """Check a label's key, ``[prefix/]name``.

    Raises:
        TypeError: It is no text.
        ValueError: It has another form.
    """
    if not isinstance(key, str):
        raise TypeError(f"Label keys must be of type str, but the key {key!r} is of type {type(key)}")
    prefix, _, name = key.rpartition("/")
    if prefix and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        raise ValueError(
            f"Invalid label key prefix `{prefix}`. Prefix must be a series of DNS labels separated by dots (.), not longer "
            "than 253 characters in total."
        )
    if not _NAME.fullmatch(name):
        raise ValueError(f"Invalid label key name `{name}`. Name must be {_SHAPE}")


def check_labels(labels: Dict[str, str], reserved: bool = False) -> None:
    """Check a node's labels.

    Args:
        labels: Keys and values.
        reserved: Whether keys may begin with ``ray.io/``. Ray lets programs set such, and refuses them to `ray start`.

    Raises:
        TypeError: They are no dict of texts.
        ValueError: A key or value has another form, or a key is reserved.
    """
    if not isinstance(labels, dict):
        raise TypeError(f"labels must be a dict of str to str, but received type {type(labels)}")
    for key, value in labels.items():
        check_key(key)
        if key.startswith("ray.io/") and not reserved:
            raise ValueError(
                f"Custom label keys `{key}` cannot start with the prefix `ray.io/`. This is reserved for Ray defined labels."
            )
        if not isinstance(value, str):
            raise TypeError(f"The value of label `{key}` must be of type str, but {value!r} is of type {type(value)}")
        if value and not _NAME.fullmatch(value):
            raise ValueError(f"Invalid label value `{value}` of key `{key}`. Value must be {_SHAPE}")


def check_selector(selector: Dict[str, str]) -> None:
    """Check a label selector: key to ``v``, ``!v``, ``in(a,b)`` or ``!in(a,b)``.

    Raises:
        TypeError: A key or value is no text.
        ValueError: A key or value has another form.
    """
    for key, value in selector.items():
        check_key(key)
        if not isinstance(value, str):
            raise TypeError(f"expected string or bytes-like object, got '{type(value).__name__}'")
        bare = value[1:] if value.startswith("!") else value
        choices = re.split(", *", bare[3:-1]) if bare.startswith("in(") and bare.endswith(")") else [bare]
        if value and not all(_NAME.fullmatch(c) for c in choices):
            raise ValueError(
                f"Invalid label selector value `{value}`. The label selector value should contain optional operators and "
                f"a label value. Supported operators are: ! and {{'in'}}. Value must be {_SHAPE}"
            )
