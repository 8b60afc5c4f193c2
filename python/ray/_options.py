"""Options of remote functions and actors: which there are, what they accept, and what a task's mean for the engine."""

import math
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ray._core import wire
from ray._missing import missing

_NONE = type(None)
_NUMBER = (float, int, _NONE)

_SHARED = (
    "label_selector",
    "fallback_strategy",
    "accelerator_type",
    "memory",
    "name",
    "num_cpus",
    "num_gpus",
    "object_store_memory",
    "placement_group",
    "placement_group_bundle_index",
    "placement_group_capture_child_tasks",
    "resources",
    "runtime_env",
    "scheduling_strategy",
    "enable_task_events",
    "_labels",
)
_TASK_ONLY = (
    "max_calls",
    "max_retries",
    "num_returns",
    "retry_exceptions",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
)
_ACTOR_ONLY = (
    "concurrency_groups",
    "enable_tensor_transport",
    "lifetime",
    "max_concurrency",
    "max_restarts",
    "max_task_retries",
    "max_pending_calls",
    "namespace",
    "get_if_exists",
    "allow_out_of_order_execution",
    "_actor_generator_backpressure_num_objects",
)
METHOD_OPTIONS = (
    "name",
    "num_returns",
    "max_task_retries",
    "retry_exceptions",
    "concurrency_group",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "enable_task_events",
    "tensor_transport",
    "_labels",
)
TASK_OPTIONS = _SHARED + _TASK_ONLY
ACTOR_OPTIONS = _SHARED + _ACTOR_ONLY

# None: checked by a function of its own, because the type lives in a module that is imported on use.
_TYPES: Dict[str, Any] = {
    "label_selector": (dict, _NONE),
    "fallback_strategy": (list, _NONE),
    "accelerator_type": (str, _NONE),
    "memory": _NUMBER,
    "name": (str, _NONE),
    "num_cpus": _NUMBER,
    "num_gpus": _NUMBER,
    "object_store_memory": (int, _NONE),
    "placement_group": None,
    "placement_group_bundle_index": int,
    "placement_group_capture_child_tasks": (bool, _NONE),
    "resources": (dict, _NONE),
    "runtime_env": (dict, _NONE),
    "scheduling_strategy": None,
    "enable_task_events": bool,
    "_labels": (dict, _NONE),
    "max_calls": (int, _NONE),
    "max_retries": (int, _NONE),
    "num_returns": (int, str, _NONE),
    "retry_exceptions": (bool, list, tuple),
    "_generator_backpressure_num_objects": (int, _NONE),
    "_num_objects_per_yield": (int, _NONE),
    "concurrency_groups": (list, dict, _NONE),
    "enable_tensor_transport": (bool, _NONE),
    "lifetime": (str, _NONE),
    "max_concurrency": (int, _NONE),
    "max_restarts": (int, _NONE),
    "max_task_retries": (int, _NONE),
    "max_pending_calls": (int, _NONE),
    "namespace": (str, _NONE),
    "get_if_exists": bool,
    "allow_out_of_order_execution": (bool, _NONE),
    "_actor_generator_backpressure_num_objects": (int, _NONE),
}

# Devices that are handed out whole, unless less than one is asked for.
_UNIT_RESOURCES = {"GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN"}
# Those of them that cannot be shared.
_WHOLE_RESOURCES = {"neuron_cores", "HPU", "RBLN"}
# How many chips of a host a process can drive.
_TPU_CHIPS = (1, 2, 4, 8)

UNITS_PER_RESOURCE = 10000


def check_task_options(options: Dict[str, Any], in_options: bool) -> None:
    """Check the options of a remote function.

    Args:
        options: Names and values.
        in_options: Whether they were given to ``.options()`` rather than to the decorator.

    Raises:
        ValueError: An unknown name, or a value that is out of bounds.
        TypeError: A value of the wrong type.
    """
    for key, value in options.items():
        _check(key, value, TASK_OPTIONS, "remote functions")
    if in_options and "max_calls" in options:
        raise ValueError("Setting 'max_calls' is not supported in '.options()'.")
    if not in_options:
        check_per_yield(options)
    _check_together(options)
    if options.get("object_store_memory") is not None:
        raise ValueError("Setting 'object_store_memory' is not implemented for tasks")


def check_per_yield(options: Dict[str, Any]) -> None:
    """Check the option _num_objects_per_yield where a function or method is defined."""
    key = "_num_objects_per_yield"
    if key in options:
        _check(key, options[key], TASK_OPTIONS, "remote functions")
        if options[key] is not None and options[key] < 1:
            raise ValueError(f"{key} is a private streaming generator option that must be set to a positive integer.")


def keep_per_yield(options: Dict[str, Any], defined, what: str, decorator: str) -> None:
    """Check the option _num_objects_per_yield where a function or method is called: it must be as ``defined``."""
    key = "_num_objects_per_yield"
    if key in options:
        _check(key, options[key], TASK_OPTIONS, "remote functions")
        if options[key] != (defined or 1):
            raise ValueError(f"{key} cannot be overridden per {what} call. Use @ray.{decorator}({key}=...) instead.")


def check_actor_options(options: Dict[str, Any], in_options: bool) -> None:
    """Check the options of an actor class; arguments and errors as in :func:`check_task_options`."""
    for key, value in options.items():
        _check(key, value, ACTOR_OPTIONS, "actors")
    if in_options and "concurrency_groups" in options:
        raise ValueError("Setting 'concurrency_groups' is not supported in '.options()'.")
    _check_together(options)
    if not in_options and options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    if options.get("lifetime") not in (None, "detached", "non_detached"):
        raise ValueError("actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'.")


def check_method_options(options: Dict[str, Any]) -> None:
    """Check the options of a call of a method.

    Raises:
        ValueError: A value that is out of bounds.
        TypeError: A value of the wrong type, or an option that methods don't have.
    """
    for key in options:
        if key not in METHOD_OPTIONS:
            raise TypeError(
                f"got an unexpected keyword argument '{key}'; a method's options are {list(METHOD_OPTIONS)}"
            )
    for key in ("max_task_retries", "retry_exceptions", "name"):
        if options.get(key) is not None:
            _check(key, options[key], TASK_OPTIONS + ACTOR_OPTIONS, "methods")
    group = options.get("concurrency_group")
    if group is not None and not isinstance(group, str):
        raise TypeError(f"The name of a concurrency group must be a string, but received {group!r}")


def check_actor_name(options: Dict[str, Any]) -> None:
    """Check what an actor is called.

    Raises:
        ValueError: An empty name or namespace, or ``get_if_exists`` without a name.
    """
    if options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    if options.get("name") == "":
        raise ValueError("Actor name cannot be an empty string.")
    if options.get("namespace") is not None:
        from ray._init import check_namespace

        check_namespace(options["namespace"])


def concurrency_groups(options: Dict[str, Any]) -> Dict[str, int]:
    """The concurrency groups of an actor and how many calls each runs at once.

    Raises:
        TypeError: They are no dict of names and numbers.
        ValueError: A number below one.
    """
    groups = options.get("concurrency_groups") or {}
    if not isinstance(groups, dict):
        raise TypeError(f"concurrency_groups must be a dict of names and numbers, but received {groups!r}")
    for name, limit in groups.items():
        if not isinstance(name, str) or not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"concurrency_groups must be a dict of names and numbers, but received {groups!r}")
        if limit < 1:
            raise ValueError(f"The concurrency group {name!r} must have at least one thread, but received {limit}.")
    return dict(groups)


def in_order(options: Dict[str, Any], asynchronous: bool, concurrency: int) -> bool:
    """Whether an actor runs a caller's calls in the order in which they were made.

    Raises:
        ValueError: It was told to, and cannot.
    """
    free = options.get("allow_out_of_order_execution")
    if asynchronous or concurrency > 1:
        if free is False:
            kind = "async" if asynchronous else "multi-threaded"
            raise ValueError(
                f"If you're using {kind} actors, Ray can't execute actor tasks in order. Set "
                "`allow_out_of_order_execution=True` to allow out-of-order execution."
            )
        return False
    return not free


def is_detached(options: Dict[str, Any], job: Optional[Dict[str, Any]]) -> bool:
    """Whether an actor outlives the program that makes it."""
    lifetime = options.get("lifetime") or (job or {}).get("default_actor_lifetime")
    return lifetime == "detached"


def actor_resources(options: Dict[str, Any]) -> Tuple[Dict[str, int], Dict[str, int]]:
    """What an actor needs to be placed, and what it holds while it lives; in 1/10000.

    An actor that asks for nothing but memory needs a CPU to be placed, and gives it back at once.
    """
    needed = task_resources(options)
    if options.get("object_store_memory"):
        needed["object_store_memory"] = options["object_store_memory"] * UNITS_PER_RESOURCE
    asked = any(options.get(k) is not None for k in ("num_cpus", "num_gpus", "accelerator_type"))
    if asked or options.get("resources"):
        return needed, needed
    return needed, {name: n for name, n in needed.items() if name != "CPU"}


def _check(key: str, value: Any, valid: Tuple[str, ...], what: str) -> None:
    if key not in valid:
        raise ValueError(f"Invalid option keyword {key} for {what}. Valid ones are {list(valid)}.")
    types = _TYPES[key]
    if types is None:
        types = _imported_types(key)
    if not isinstance(value, types):
        raise TypeError(f"The type of keyword '{key}' must be {types}, but received type {type(value)}")
    rule = _RULES.get(key)
    if rule is not None and value is not None:
        rule(key, value)


def _imported_types(key: str) -> Tuple[type, ...]:
    if key == "placement_group":
        from ray.util.placement_group import PlacementGroup

        return (_NONE, str, PlacementGroup)
    from ray.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
        NodeLabelSchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )

    return (_NONE, str, PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)


def _quantity(name: str, value: float) -> None:
    _not_negative(name, value)
    if 0 < value < 1 / UNITS_PER_RESOURCE:
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001")


def _not_negative(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"The quantity of resource {name} must be a finite number, but received {value}")
    if value < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative")


def _resources(_: str, value: Dict) -> None:
    if "CPU" in value or "GPU" in value:
        raise ValueError("Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword")
    for name, quantity in value.items():
        if not isinstance(name, str):
            raise TypeError(f"The keys of 'resources' must be names of resources, but received {name!r}")
        if not isinstance(quantity, (int, float)):
            raise TypeError(f"The quantity of resource {name} must be a number, but received {quantity!r}")
        _quantity(name, quantity)
        if name == "TPU" and quantity not in _TPU_CHIPS:
            raise ValueError(
                f"The number of requested 'TPU' was set to {quantity} which is not a supported chip configuration. "
                f"Supported configs: {_TPU_CHIPS}"
            )
        if name in _WHOLE_RESOURCES and quantity != int(quantity):
            raise ValueError(
                f"{name} resource quantity must be whole numbers. The specified quantity {quantity} is invalid."
            )


def _infinite(key: str, value: int) -> None:
    if value < -1:
        raise ValueError(
            f"The keyword '{key}' only accepts None, 0, -1 or a positive integer, where -1 represents infinity."
        )


def _max_calls(key: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"The keyword '{key}' only accepts None, 0 or a positive integer.")


def _num_returns(_: str, value: Any) -> None:
    if isinstance(value, int) and value >= 0 or value in ("streaming", "dynamic"):
        if isinstance(value, int) and value > wire.MAX_RETURNS:
            raise ValueError(
                f"num_returns={value}: a task returns at most {wire.MAX_RETURNS} objects. Return a list of refs made by ray.put(), "
                "or one object that holds them all."
            )
        return
    raise ValueError(
        "Default None. When None is passed, The default value is 1 for a task and actor task, and 'streaming' for "
        "generator tasks and generator actor tasks. The keyword 'num_returns' only accepts None, a non-negative integer, "
        "'streaming' (for generators), or 'dynamic'. 'dynamic' flag will be deprecated in the future, and it is "
        "recommended to use 'streaming' instead."
    )


def _retry_exceptions(_: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not all(isinstance(c, type) and issubclass(c, BaseException) for c in value):
        raise ValueError("retry_exceptions must be either a boolean or a list of exceptions")


def _backpressure(key: str, value: int) -> None:
    if value == 0:
        raise ValueError(
            f"{key}=0 is not allowed. Use a value > 0. If the value is equal to 1, the behavior is identical to Python "
            "generator (generator 1 object whenever `next` is called). Use -1 to disable this feature. "
        )


def _runtime_env(_: str, value: Dict) -> None:
    from ray.runtime_env import check_task_env

    check_task_env(value)


def _label_selector(_: str, value: Dict) -> None:
    from ray._labels import check_selector

    check_selector(value)


def _fallback_strategy(_: str, value: list) -> None:
    for entry in value:
        if not isinstance(entry, dict):
            raise ValueError(f"Each element in fallback_strategy must be a dictionary, but received {entry!r}.")
        if not entry:
            raise ValueError("Empty dictionary found in `fallback_strategy`.")
        for key, selector in entry.items():
            if key != "label_selector":
                raise ValueError(f"Unsupported option found: '{key}'. Only ['label_selector'] is currently supported.")
            if selector is not None and not isinstance(selector, dict):
                raise ValueError(f'The value of "label_selector" must be a dictionary, but received {selector!r}.')
            _label_selector("label_selector", selector or {})


_RULES: Dict[str, Callable[[str, Any], None]] = {
    "num_cpus": _quantity,
    "num_gpus": _quantity,
    "memory": _not_negative,
    "resources": _resources,
    "max_retries": _infinite,
    "max_restarts": _infinite,
    "max_task_retries": _infinite,
    "max_pending_calls": _infinite,
    "max_calls": _max_calls,
    "max_concurrency": _max_calls,
    "object_store_memory": _max_calls,
    "num_returns": _num_returns,
    "retry_exceptions": _retry_exceptions,
    "_generator_backpressure_num_objects": _backpressure,
    "runtime_env": _runtime_env,
    "label_selector": _label_selector,
    "fallback_strategy": _fallback_strategy,
}


def _check_together(options: Dict[str, Any]) -> None:
    group = options.get("placement_group", "default")
    if options.get("scheduling_strategy") is not None and group not in ("default", None):
        raise ValueError(
            "Placement groups should be specified via the scheduling_strategy option. The placement_group option is "
            "deprecated."
        )


def task_resources(options: Dict[str, Any]) -> Dict[str, int]:
    """What a task holds while it runs, name to quantity in 1/10000.

    Raises:
        ValueError: Memory among the custom resources, or more than one of a device that can't be cut, but not a whole
            number of it.
    """
    custom = options.get("resources") or {}
    if "memory" in custom or "object_store_memory" in custom:
        raise ValueError("The resources dictionary must not contain the key 'memory' or 'object_store_memory'")
    wanted: Dict[str, float] = dict(custom)
    cpus, gpus = options.get("num_cpus"), options.get("num_gpus")
    wanted["CPU"] = 1 if cpus is None else cpus
    if gpus is not None:
        wanted["GPU"] = gpus
    if options.get("memory") is not None:
        wanted["memory"] = int(options["memory"])
    for name in _UNIT_RESOURCES.intersection(wanted):
        quantity = wanted[name]
        if quantity > 1 and quantity != int(quantity):
            raise ValueError(
                f"{name} resource quantities >1 must be whole numbers. The specified quantity {quantity} is invalid."
            )
    if options.get("accelerator_type") is not None:
        wanted[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {name: round(quantity * UNITS_PER_RESOURCE) for name, quantity in wanted.items() if quantity}


def max_calls(options: Dict[str, Any]) -> int:
    """After how many calls a worker leaves; 0 means never. A GPU's memory comes back only with the process's end."""
    value = options.get("max_calls")
    if value is None:
        return 1 if (options.get("num_gpus") or 0) > 0 else 0
    return value


def max_retries(options: Dict[str, Any]) -> int:
    """How often a task is run again after its worker died; -1 means for ever."""
    value = options.get("max_retries")
    if value is None:
        value = int(os.environ.get("RAY_TASK_MAX_RETRIES", "3"))
    return value


def retry_exceptions(options: Dict[str, Any]):
    """Which of the task's own exceptions lead to a retry: a bool, or a tuple of classes."""
    value = options.get("retry_exceptions", False)
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return value


class Placement(NamedTuple):
    """Where a task or an actor may run, as the client protocol has it."""

    strategy: Any
    labels: Optional[Dict[str, str]]
    fallback: List[Dict[str, str]]  # selectors to try where no node with the labels is free, in this order

    @property
    def key(self):
        """What tells one placement from another."""
        strategy, labels = self.strategy, self.labels
        return (
            tuple(sorted(strategy.items())) if isinstance(strategy, dict) else strategy,
            tuple(sorted(labels.items())) if labels else None,
            tuple(tuple(sorted(f.items())) for f in self.fallback),
        )

    def fields(self) -> Dict[str, Any]:
        """The fields of a template."""
        fields = {"strategy": self.strategy, "labels": self.labels}
        if self.fallback:
            fields["fallback"] = self.fallback
        return fields


def _both(one: Dict[str, str], other: Dict[str, str]) -> Dict[str, str]:
    """A selector for which both hold."""
    joined = {**one, **other}
    for key in one.keys() & other.keys():
        joined[key] = f"{one[key]}&{other[key]}"
    return joined


def placement(options: Dict[str, Any]) -> Placement:
    """Where a task or an actor may run.

    Raises:
        ValueError: A strategy that there is not.
        NotImplementedError: A strategy that is not there yet.
    """
    value = options.get("scheduling_strategy")
    labels = dict(options.get("label_selector") or {})
    fallback = [dict(f.get("label_selector") or {}) for f in options.get("fallback_strategy") or ()]
    if options.get("placement_group", "default") not in ("default", None):
        raise missing("placement groups (the option placement_group)")
    if options.get("placement_group_bundle_index", -1) != -1:
        raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    if options.get("placement_group_capture_child_tasks"):
        raise missing("placement groups (the option placement_group_capture_child_tasks)")
    if value is None or value == "DEFAULT":
        return Placement(None, labels or None, fallback)
    if isinstance(value, str):
        if value == "SPREAD":
            return Placement("SPREAD", labels or None, fallback)
        raise ValueError(
            f"Invalid scheduling_strategy value {value}. Valid values are "
            '["DEFAULT" | "SPREAD" | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy]'
        )
    strategy, hard, soft = value._for_engine()
    choices = [_both(f, hard) for f in (labels, *fallback)]
    if soft:
        choices = [c for f in choices for c in (_both(f, soft), f)]
    return Placement(strategy, choices[0] or None, choices[1:])


def backpressure(options: Dict[str, Any]) -> int:
    """How many items of a generator may be there and not be taken; 0: as many as memory allows."""
    return max(options.get("_generator_backpressure_num_objects") or 0, 0)


def check_there(options: Dict[str, Any]) -> None:
    """Refuse the options that can't be honoured yet.

    Raises:
        NotImplementedError: Naming the option.
    """
    if options.get("_labels"):
        raise missing("the option _labels")
