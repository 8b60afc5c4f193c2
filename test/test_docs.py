"""The documents: messages that they quote are in the sources, what they link to and name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Tables whose first column quotes what the project says.
HEADERS = {"it says", "表示"}
SHORTEST = 6  # characters between two … that are looked for


def name(path):
    return str(path.relative_to(ROOT))


def python_texts(path):
    """The string constants of a module; what is filled in is a NUL."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%\.?[0-9]*[sdrgfx]|\{[^{}]*\}", "\0", node.value)


LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`([^`]*)`|\'(?:[^\'\\\n]|\\.)+\'|//[^\n]*')
# Between two parts of one text: + and perhaps something that is filled in.
JOINED = re.compile(r"\s*\+\s*(?:[\w.()\[\]]+\s*\+\s*)?")


def go_texts(path):
    """The string literals of a file, those that are added up as one; what is filled in is a NUL."""
    source = path.read_text(encoding="utf-8")
    parts, end = [], None
    for m in LITERAL.finditer(source):
        if m.group(1) is None and m.group(2) is None:
            continue  # a rune or a comment
        text = m.group(2) if m.group(1) is None else m.group(1).replace('\\"', '"').replace("\\n", "\n")
        text = re.sub(r"%[-+#0]*[0-9.]*[a-zA-Z]", "\0", text)
        between = source[end : m.start()] if end is not None else ""
        joined = JOINED.fullmatch(between)
        if parts and not joined:
            yield "".join(parts)
            parts = []
        elif parts and between.count("+") > 1:
            parts.append("\0")
        parts.append(text)
        end = m.end()
    yield "".join(parts)


@pytest.fixture(scope="module")
def texts():
    """Everything that the project can say."""
    found = []
    for path in [*(ROOT / "python" / "ray").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        if "__pycache__" not in path.parts:
            found += python_texts(path)
    for top in ("cmd", "internal"):
        for path in (ROOT / top).rglob("*.go"):
            if not path.name.endswith("_test.go"):
                found += go_texts(path)
    found.append(re.sub(r"\$\([^)]*\)|\$\w+", "\0", (ROOT / "packaging" / "image_tar.sh").read_text(encoding="utf-8")))
    return "\1".join(found)


def quoted(path):
    """(line number, message) of each message in the tables that quote."""
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            inside = False
            continue
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line.strip("|"))]
        if cells[0] in HEADERS:
            inside = True
        elif inside and not set(cells[0]) <= set("- "):
            message = re.fullmatch(r"(`+)(.*)\1", cells[0])
            assert message, "%s:%d quotes nothing" % (name(path), number)
            yield number, message.group(2).strip()


def missing(message, texts):
    """The parts of a message that nothing says."""
    parts = [p.strip() for p in message.split("…")]
    parts = [p for p in parts if len(p) >= SHORTEST]
    return [p for p in parts if p not in texts] if parts else [message]


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if any(True for _ in quoted(p))], ids=name)
def test_quoted_messages_are_said(path, texts):
    bad = [(number, part) for number, message in quoted(path) for part in missing(message, texts)]
    assert not bad, "%s quotes what nothing says" % name(path)


def test_what_is_not_said_is_found(texts):
    assert missing("the moon did not answer in time; check that it runs", texts)
    assert missing("…", texts) and missing("a … b", texts)
    assert not missing("the head did not answer in time … its count of out-of-memory kills has grown", texts)


def test_there_are_messages():
    assert len(list(quoted(ROOT / "docs" / "troubleshooting.md"))) > 40
    assert len(list(quoted(ROOT / "docs" / "ja" / "kubernetes.md"))) >= 5


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (path.parent / file).resolve() if file else path
        if not there.exists():
            bad.append(target)
        elif anchor and anchor not in anchors(there):
            bad.append(target)
    assert not bad


def anchors(path):
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_and_targets_that_commands_name_are_there(path):
    text = path.read_text(encoding="utf-8")
    files = set(re.findall(r"(?<![\w/.-])(?:deploy|examples|packaging|test)/[\w./-]*\w\.(?:yaml|py|ipynb|md|sh)", text))
    # In the notebook's image examples/ is what is examples/kubernetes/ here.
    in_image = ROOT / "examples" / "kubernetes"
    gone = [f for f in files if not ((ROOT / f).exists() or (in_image / f.partition("examples/")[2]).is_file())]
    targets = set(re.findall(r"^\s*\.PHONY: ([\w-]+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    said = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M))
    assert not gone and not said - targets
