"""Types for annotations."""

from typing import TypeVar

from ray._core import ObjectRef

__all__ = ["ObjectRef", "T"]

T = TypeVar("T")
