"""Serializers of a program's own."""

__all__ = ["deregister_serializer", "register_serializer"]


def register_serializer(cls: type, *, serializer, deserializer) -> None:
    """Choose how instances of a class are serialised, in this process.

    Args:
        cls: The class; its subclasses are not meant.
        serializer: Makes of an instance something that can be pickled.
        deserializer: Makes an instance of that again; travels with each value.
    """
    from ray import _core

    _core.register_serializer(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Forget what :func:`register_serializer` was told about a class; nothing happens if it never was."""
    from ray import _core

    _core.deregister_serializer(cls)
