"""Task graphs: the names. Building one is not there yet."""

from ray._missing import missing

__all__ = [
    "ClassMethodNode",
    "ClassNode",
    "CollectiveOutputNode",
    "DAGContext",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
    "plot",
]


def _missing(node, name):
    return missing(f"task graphs (ray.dag.{type(node).__name__}.{name})")


class DAGNode:
    """A node of a task graph. Not there yet; what follows is what a node will do."""

    def __init__(self, *args, **kwargs):
        raise missing(f"task graphs (ray.dag.{type(self).__name__})")

    def execute(self, *args, _ray_cache_refs=False, **kwargs):
        """Run the graph up to this node."""
        raise _missing(self, "execute")

    def experimental_compile(
        self,
        _submit_timeout=None,
        _buffer_size_bytes=None,
        enable_asyncio=False,
        _max_inflight_executions=None,
        _max_buffered_results=None,
        _overlap_gpu_communication=None,
        _default_communicator="create",
    ):
        """Prepare the graph to run many times."""
        raise _missing(self, "experimental_compile")

    def with_tensor_transport(self, transport="auto", device="default", _static_shape=False, _direct_return=False):
        """Choose how this node's tensors are sent."""
        raise _missing(self, "with_tensor_transport")

    def apply_functional(self, source_input_list, predicate_fn, apply_fn):
        """Replace those of a list that a predicate picks."""
        raise _missing(self, "apply_functional")

    def apply_recursive(self, fn):
        """Call a function with each node, inputs first."""
        raise _missing(self, "apply_recursive")

    def traverse_and_apply(self, fn):
        """Call a function with each node, this one first."""
        raise _missing(self, "traverse_and_apply")

    def clear_cache(self):
        """Forget what apply_recursive keeps."""
        raise _missing(self, "clear_cache")

    def get_args(self):
        """The positional arguments that are bound."""
        raise _missing(self, "get_args")

    def get_kwargs(self):
        """The keyword arguments that are bound."""
        raise _missing(self, "get_kwargs")

    def get_options(self):
        """The options of the call."""
        raise _missing(self, "get_options")

    def get_other_args_to_resolve(self):
        """What else the node depends on."""
        raise _missing(self, "get_other_args_to_resolve")

    def get_object_refs_from_last_execute(self):
        """The refs of the last execution."""
        raise _missing(self, "get_object_refs_from_last_execute")

    def get_stable_uuid(self):
        """An id of the node."""
        raise _missing(self, "get_stable_uuid")

    @property
    def type_hint(self):
        """What kind of values the node makes."""
        raise _missing(self, "type_hint")


class FunctionNode(DAGNode):
    """A call of a remote function. Not there yet."""


class ClassNode(DAGNode):
    """An actor. Not there yet."""


class ClassMethodNode(DAGNode):
    """A call of an actor's method. Not there yet."""

    def get_method_name(self):
        """The method's name."""
        raise _missing(self, "get_method_name")

    @property
    def num_returns(self):
        """How many values the call returns."""
        raise _missing(self, "num_returns")

    @property
    def output_idx(self):
        """Which of the call's values the node stands for."""
        raise _missing(self, "output_idx")

    @property
    def class_method_call(self):
        """The call that the node is a value of."""
        raise _missing(self, "class_method_call")

    @property
    def is_class_method_call(self):
        """Whether the node is a call."""
        raise _missing(self, "is_class_method_call")

    @property
    def is_class_method_output(self):
        """Whether the node is one of the values of a call."""
        raise _missing(self, "is_class_method_output")


class CollectiveOutputNode(ClassMethodNode):
    """One actor's part in a collective operation. Not there yet."""

    @property
    def collective_op(self):
        """The operation."""
        raise _missing(self, "collective_op")


class InputNode(DAGNode):
    """The input of a graph. Not there yet."""

    def get_result_type(self):
        """The type of the input."""
        raise _missing(self, "get_result_type")

    def set_context(self, key, val):
        """Note something of the graph."""
        raise _missing(self, "set_context")


class InputAttributeNode(DAGNode):
    """A part of the input of a graph. Not there yet."""

    def get_result_type(self):
        """The type of the part."""
        raise _missing(self, "get_result_type")

    @property
    def key(self):
        """The part's name or number."""
        raise _missing(self, "key")


class MultiOutputNode(DAGNode):
    """Several outputs of a graph. Not there yet."""


class DAGContext:
    """Settings of compiled graphs. Not there yet."""

    @staticmethod
    def get_current():
        """The settings of this process."""
        raise missing("task graphs (ray.dag.DAGContext)")


def plot(dag, to_file=None):
    """Draw a graph. Not there yet."""
    raise missing("task graphs (ray.dag.plot)")
