"""Task graphs: the names. Building one is not there yet."""

from ray._missing import missing

__all__ = ["ClassNode", "DAGNode", "FunctionNode", "InputNode", "MultiOutputNode"]


class DAGNode:
    """A node of a task graph. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing(f"task graphs (ray.dag.{type(self).__name__})")


class FunctionNode(DAGNode):
    """A call of a remote function. Not there yet."""


class ClassNode(DAGNode):
    """An actor. Not there yet."""


class InputNode(DAGNode):
    """The input of a graph. Not there yet."""


class MultiOutputNode(DAGNode):
    """Several outputs of a graph. Not there yet."""
