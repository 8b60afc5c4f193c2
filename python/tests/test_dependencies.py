"""What the package imports: the standard library, cloudpickle and msgpack; anything else only where it is there already."""

import ast
import importlib.util
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(importlib.util.find_spec("ray").origin).parent
DEPENDENCIES = {"cloudpickle", "msgpack"}
# Used inside of functions, and only if the program or its user brought them.
OPTIONAL = {"numpy", "torch", "psutil", "pytest", "requests"}
# The standard library's names for one thing in its several versions.
STANDARD = {"_sha2", "_sha256"}
# Parts that are for users of another package, and are imported by nobody else.
FOR = {"util/joblib": "joblib", "util/state/state_cli.py": "click"}


def imports(tree):
    """Yields the name of each top-level package that a file imports, and whether it does so inside of a function."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for name in child.names:
                    yield name.name.split(".")[0], inside
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                yield child.module.split(".")[0], inside
            else:
                yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    return walk(tree, False)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not list the modules of its standard library")
def test_imports():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 30, f"{PACKAGE} is not the whole package"
    bad = []
    for path in files:
        for name, inside in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                name == "ray"
                or name in DEPENDENCIES
                or name in sys.stdlib_module_names
                or (inside and name in OPTIONAL | STANDARD)
                or name in (FOR.get(str(p.relative_to(PACKAGE))) for p in (path, path.parent))
            ):
                continue
            bad.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not bad, "\n".join(bad)


def test_no_compiled_part():
    assert not [p.name for p in PACKAGE.rglob("*.so")]
