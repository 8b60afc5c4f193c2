"""Finding out what of an object can't be serialised."""

import inspect
import sys
from typing import Any, List, Optional, Set, Tuple

__all__ = ["FailureTuple", "inspect_serializability"]


class FailureTuple:
    """Something that can't be serialised.

    Attributes:
        obj: The object.
        path: The names that lead to it, from the object that was inspected; empty for that one.
        parent: The object that holds it; None for the one that was inspected.
    """

    def __init__(self, obj: Any, path: Tuple[str, ...], parent: Any):
        self.obj = obj
        self.path = path
        self.parent = parent

    @property
    def name(self) -> str:
        """Its name where it was found."""
        return self.path[-1] if self.path else "unknown"

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [path={' -> '.join(self.path)}, obj={self.obj}, parent={self.parent}])"


class _Search:
    def __init__(self, out, depth: int):
        self.out = out
        self.depth = depth
        self.failures: List[FailureTuple] = []
        self.seen: Set[int] = set()

    def say(self, level: int, text: str) -> None:
        print("    " * level + text, file=self.out)

    def visit(self, obj: Any, path: Tuple[str, ...], parent: Any, level: int) -> bool:
        """Report on one object and those that it holds; returns whether it can be serialised."""
        from ray import cloudpickle

        try:
            cloudpickle.dumps(obj)
            return True
        except Exception as e:  # whatever a user's class raises
            self.say(level, f"!!! FAIL serialization: {e}")
        if id(obj) in self.seen or level >= self.depth:
            self.found(obj, path, parent)
            return False
        self.seen.add(id(obj))
        before = len(self.failures)
        parts = self.of_function(obj, level) if inspect.isfunction(obj) else self.of_instance(obj)
        for part_name, part in parts:
            self.say(level, f"Serializing '{part_name}' {part}...")
            self.visit(part, (*path, part_name), obj, level + 1)
        if len(self.failures) == before:
            self.say(
                level,
                f"WARNING: Did not find non-serializable object in {obj}. This may be an oversight: the object itself may "
                "be the cause.",
            )
            self.found(obj, path, parent)
        return False

    def found(self, obj: Any, path: Tuple[str, ...], parent: Any) -> None:
        if all(f.obj is not obj for f in self.failures):
            self.failures.append(FailureTuple(obj, path, parent))

    def of_function(self, function: Any, level: int) -> List[Tuple[str, Any]]:
        held = inspect.getclosurevars(function)
        self.say(level, f"Detected {len(held.globals)} global variables. Checking serializability...")
        parts = list(held.globals.items())
        if held.nonlocals:
            self.say(level, f"Detected {len(held.nonlocals)} nonlocal variables. Checking serializability...")
            parts += held.nonlocals.items()
        return parts

    def of_instance(self, obj: Any) -> List[Tuple[str, Any]]:
        if isinstance(obj, dict):
            return [(str(k), v) for k, v in obj.items()]
        if isinstance(obj, (list, tuple, set, frozenset)):
            return [(f"[{i}]", v) for i, v in enumerate(obj)]
        fields = dict(getattr(obj, "__dict__", None) or {})
        if isinstance(obj, type):
            return [(n, f) for n, f in fields.items() if inspect.isfunction(f)]
        return list(fields.items())


def inspect_serializability(
    base_obj: Any, name: Optional[str] = None, depth: int = 3, print_file: Optional[Any] = None
) -> Tuple[bool, Set[FailureTuple]]:
    """Find out what of an object can't be serialised, and print a report.

    Args:
        base_obj: The object.
        name: What the paths in the report begin with.
        depth: How deep to look into what it holds.
        print_file: Where to print; None: stdout.

    Returns:
        Whether it can be serialised, and what can't, as :class:`FailureTuple`.
    """
    out = print_file if print_file is not None else sys.stdout
    title = f"Checking Serializability of {base_obj}"
    bar = "=" * min(len(title), 80)
    print(f"{bar}\n{title}\n{bar}", file=out)
    search = _Search(out, depth)
    fine = search.visit(base_obj, (name,) if name else (), None, 0)
    if not fine:
        print(bar, file=out)
        listed = "\n\n".join(f"\t{f!r}" for f in search.failures)
        print(f"Variable: \n\n{listed}\n", file=out)
        print(
            "was found to be non-serializable. There may be multiple other undetected variables that were non-serializable. \n"
            "Consider either removing the instantiation/imports of these variables or moving the instantiation into the scope "
            "of the function/class. ",
            file=out,
        )
    print(bar, file=out)
    return fine, set(search.failures)
