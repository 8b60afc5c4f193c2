"""The Python sources: what they may import, and that every Python we support can read them."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "ray"
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
OLDEST = (3, 9)
DEPENDENCIES = {"cloudpickle", "msgpack"}

# Modules that their host imports, when it is there.
PLUGINS = {"python/ray/util/joblib/ray_backend.py": {"joblib"}, "python/ray/util/state/state_cli.py": {"click"}}


def name(path):
    return str(path.relative_to(ROOT))


def test_there_are_sources():
    assert len(SOURCES) >= 5


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_oldest_python_can_read_it(path):
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=OLDEST)


def imported_at_once(tree):
    """Yields (line, module) of each import that runs when the module is imported, but for those that may fail."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif isinstance(node, (ast.If, ast.With, ast.ClassDef)):
            todo += node.body + getattr(node, "orelse", [])


@pytest.mark.skipif(sys.version_info < (3, 10), reason="this Python cannot list its standard library")
@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_it_imports_the_standard_library_and_two_packages_only(path):
    known = sys.stdlib_module_names | DEPENDENCIES | {"ray"} | PLUGINS.get(name(path), set())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bad = [(line, module) for line, module in imported_at_once(tree) if module.split(".")[0] not in known]
    assert not bad, "%s imports %s when it is imported: import it where it is used" % (name(path), bad)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_annotations_are_not_run_on_pythons_that_cannot(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = any(
        isinstance(n, ast.ImportFrom) and n.module == "__future__" and any(a.name == "annotations" for a in n.names)
        for n in tree.body
    )
    if deferred:
        return
    annotations = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            annotations += [node.returns] + [
                a.annotation for a in node.args.args + node.args.kwonlyargs + node.args.posonlyargs
            ]
        elif isinstance(node, ast.AnnAssign):
            annotations.append(node.annotation)
    unions = [
        n.lineno
        for a in annotations
        if a is not None
        for n in ast.walk(a)
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.BitOr)
    ]
    assert not unions, "%s: `X | Y` in an annotation on lines %s needs `from __future__ import annotations`" % (
        name(path),
        unions,
    )
