"""Which files of a folder stay behind: patterns as in .gitignore files."""

import os
import re
from typing import List, Optional, Tuple

_DEFAULT = (".git", ".venv", "venv", "__pycache__")


class Patterns:
    """The lines of one list, which count from one folder on. The last that matches decides."""

    def __init__(self, lines, below: str = ""):
        self._below = below + "/" if below else ""
        self._rules: List[Tuple[re.Pattern, bool, bool]] = []
        for line in lines:
            rule = _rule(line)
            if rule is not None:
                self._rules.append(rule)

    def exclude(self, path: str, is_folder: bool) -> bool:
        """Whether a path, with slashes and below the whole folder, stays behind."""
        if not path.startswith(self._below):
            return False
        path = path[len(self._below) :]
        out = False
        for pattern, keeps, only_folders in self._rules:
            if (is_folder or not only_folders) and pattern.match(path):
                out = not keeps
        return out


def default_excludes() -> List[str]:
    """Folders that stay behind unless RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES names others."""
    given = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
    return list(_DEFAULT) if given is None else [name for name in given.split(",") if name]


def of_folder(folder: str, below: str) -> List[Patterns]:
    """The lists that a folder brings along: its .gitignore and .rayignore."""
    names = [".rayignore"]
    if os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") != "1":
        names.append(".gitignore")
    lists = []
    for name in names:
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as f:
                lists.append(Patterns(f.read().splitlines(), below))
        except (FileNotFoundError, IsADirectoryError):
            pass
    return lists


def _rule(line: str) -> Optional[Tuple[re.Pattern, bool, bool]]:
    """A line as pattern, whether it keeps what it matches, and whether it is for folders only."""
    line = line.rstrip("\r\n")
    stripped = line.rstrip(" ")
    if stripped.endswith("\\") and stripped != line:
        stripped += " "
    keeps = stripped.startswith("!")
    text = stripped[1:] if keeps else stripped
    if not text or text.startswith("#"):
        return None
    only_folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    anchored = "/" in text
    return (
        re.compile(("" if anchored else "(?:.*/)?") + _regex(text.lstrip("/")) + r"\Z", re.DOTALL),
        keeps,
        only_folders,
    )


def _regex(text: str) -> str:
    out = ""
    at = 0
    while at < len(text):
        c = text[at]
        at += 1
        if text.startswith("**/", at - 1) and (at == 1 or text[at - 2] == "/"):
            out += "(?:.*/)?"
            at += 2
        elif c == "*" and text[at - 1 :] == "**" and (at == 1 or text[at - 2] == "/"):
            out += ".*"
            at += 1
        elif c == "*":
            out += "[^/]*"
        elif c == "?":
            out += "[^/]"
        elif c == "[" and (end := text.find("]", at + (2 if text[at : at + 1] == "!" else 1))) > 0:
            inside = text[at:end].replace("\\", "\\\\")
            negated = inside[:1] in ("!", "^")
            out += "(?!/)[" + ("^" if negated else "") + (inside[1:] if negated else inside) + "]"
            at = end + 1
        elif c == "\\" and at < len(text):
            out += re.escape(text[at])
            at += 1
        else:
            out += re.escape(c)
    return out
