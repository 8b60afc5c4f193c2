"""Packages: what a driver's folders become so that all nodes can have them.

A package is a zip archive whose name holds the hash of its files' names, modes and contents. So equal folders are one
package, which is made and sent only if the cluster does not have it.
"""

import hashlib
import itertools
import logging
import os
import stat
import tempfile
import zipfile
from typing import Any, Dict, List, Optional

from ray.runtime_env import _ignore

logger = logging.getLogger("ray")

MAX_PACKAGE = 512 << 20  # bytes
_LARGE_FILE = 10 << 20  # bytes from which a file gets a warning
_PART = 512 << 10  # bytes of an archive in one message
_ARCHIVES = (".zip", ".tar.gz", ".tgz")


class Package:
    """One that a job brings along."""

    def __init__(self, path: str, hashed: str, ending: str, files: Optional[list]):
        self.path = path
        self.name = f"_ray_pkg_{hashed}{ending}"
        self.uri = "gcs://" + self.name
        self._files = files  # (name in the archive, path; None for a folder, mode), sorted; None: path is the archive

    def upload(self, call, folder: Optional[str]) -> None:
        """Send it to the cluster, if it is not there.

        Args:
            call: What asks the node daemon, as ``ray._core.call``.
            folder: A folder that the node daemon can read, for the archive; None: there is none, so its bytes are sent.
        """
        if call("package_has", name=self.name)["has"]:
            return
        if self._files is None:
            self._put(call, self.path, folder is not None)
            return
        handle, archive = tempfile.mkstemp(prefix="upload-", suffix=".part", dir=folder)
        try:
            with os.fdopen(handle, "wb") as f:
                self._write(f)
            logger.info("Pushing file package '%s' (%s) to Ray cluster...", self.uri, _mib(os.path.getsize(archive)))
            self._put(call, archive, folder is not None)
            logger.info("Successfully pushed file package '%s'.", self.uri)
        finally:
            os.unlink(archive)

    def _put(self, call, archive: str, here: bool) -> None:
        if here:
            call("package_put", name=self.name, path=archive)
            return
        with open(archive, "rb") as f:
            for index in itertools.count():
                part = f.read(_PART)
                if index and not part:
                    break
                call("package_part", name=self.name, value=part, index=index)
        call("package_put", name=self.name)

    def _write(self, f) -> None:
        with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, path, mode in self._files:
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.create_system = 3  # Unix: modes count
                if path is None:
                    info.external_attr = (stat.S_IFDIR | 0o755) << 16
                    archive.writestr(info, b"")
                    continue
                info.external_attr = (stat.S_IFREG | mode) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                with open(path, "rb") as source, archive.open(info, "w", force_zip64=True) as to:
                    while chunk := source.read(1 << 20):
                        to.write(chunk)
                        _check_size(self.path, f.tell())


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.2f}MiB"


def _check_size(path: str, size: int) -> None:
    if size > MAX_PACKAGE:
        raise ValueError(
            f"Package size of {path} ({_mib(size)} so far) exceeds the maximum size of {_mib(MAX_PACKAGE)}. You can exclude "
            "large files using the 'excludes' option to the runtime_env or a .rayignore file, or provide a remote URI of "
            "a zip file (https://, file://)."
        )


def of_folder(folder: str, excludes: List[str], inside: str = "") -> Package:
    """The package of a folder.

    Args:
        folder: Its path. Symbolic links are followed.
        excludes: Patterns as in .gitignore of what stays behind.
        inside: The name of a folder that holds all in the package; "": none.
    """
    files = []
    digest = hashlib.sha256(b"1")
    always = [_ignore.Patterns([*_ignore.default_excludes()]), _ignore.Patterns(excludes)]
    if inside:
        files.append((inside + "/", None, 0))
    for name, path, mode in sorted(_walk(folder, always)):
        shown = f"{inside}/{name}" if inside else name
        files.append((shown, path, mode))
        digest.update(b"%s\0%o\0" % (shown.encode("utf-8", "surrogateescape"), mode))
        if path is not None:
            digest.update(_content(path))
            size = os.path.getsize(path)
            if size > _LARGE_FILE:
                logger.warning(
                    "File %s is very large (%s). Consider adding this file to the 'excludes' list to skip uploading it: "
                    "`ray.init(..., runtime_env={'excludes': ['%s']})`",
                    path,
                    _mib(size),
                    "/" + name,
                )
    return Package(folder, digest.hexdigest()[:32], ".zip", files)


def _content(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _walk(folder: str, always: list):
    """The files below a folder that do not stay behind, and its folders: (name, path; None for a folder, mode)."""
    left = [(folder, "", always, {os.path.realpath(folder)})]
    while left:
        at, below, lists, above = left.pop()
        lists = lists + _ignore.of_folder(at, below)
        with os.scandir(at) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                try:
                    is_folder = entry.is_dir()
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # a link to nowhere, or gone since the folder was read
                if any(patterns.exclude(name, is_folder) for patterns in lists):
                    continue
                if is_folder:
                    real = os.path.realpath(entry.path)
                    if real in above:
                        raise ValueError(
                            f"{entry.path} leads back to a folder above it, so the folder has no end; add it to 'excludes'"
                        )
                    yield name + "/", None, 0
                    left.append((entry.path, name, lists, above | {real}))
                elif stat.S_ISREG(status.st_mode):
                    yield name, entry.path, status.st_mode & 0o755


def of_file(path: str) -> Package:
    """The package of a module that is a single file."""
    mode = os.stat(path).st_mode & 0o755
    name = os.path.basename(path)
    hashed = hashlib.sha256(b"2" + name.encode() + b"\0%o\0" % mode + _content(path)).hexdigest()[:32]
    return Package(path, hashed, ".zip", [(name, path, mode)])


def of_archive(path: str) -> Package:
    """The package that an archive is already."""
    _check_size(path, os.path.getsize(path))
    ending = next(e for e in _ARCHIVES if path.endswith(e))
    return Package(os.path.abspath(path), hashlib.sha256(b"3" + _content(path)).hexdigest()[:32], ending, None)


def of_working_dir(path: str, excludes: List[str]) -> Package:
    """The package of a working_dir.

    Raises:
        ValueError: It is neither a folder nor an archive, or too large.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return of_folder(path, excludes)
    if os.path.isfile(path) and path.endswith(_ARCHIVES):
        return of_archive(path)
    if os.path.isfile(path) and path.endswith(".tar.xz"):
        from ray._missing import missing

        raise missing(f"working_dir={path!r} (a .tar.xz archive; .zip and .tar.gz are unpacked)")
    raise ValueError(
        f"directory {path} must be an existing directory or a supported archive (.zip, .tar.gz, .tgz, .tar.xz)"
    )


def of_module(module: Any, excludes: List[str]) -> Package:
    """The package of an entry of py_modules: a path, or a module that the driver has imported.

    Raises:
        TypeError: It is something else.
        ValueError: There is nothing of it that could be sent.
    """
    if isinstance(module, os.PathLike):
        module = os.fspath(module)
    if not isinstance(module, str):
        module = _path_of(module)
    path = os.path.abspath(os.path.expanduser(module))
    if os.path.isdir(path):
        return of_folder(path, excludes, os.path.basename(path))
    if os.path.isfile(path) and path.endswith(".py"):
        return of_file(path)
    if os.path.isfile(path) and path.endswith(".zip"):
        return of_archive(path)
    if path.endswith(".whl"):
        from ray._missing import missing

        raise missing(f"py_modules with the wheel {module}")
    raise ValueError(f"py_modules entry must be a .py file, a directory, or a .whl file; got {module}")


def _path_of(module: Any) -> str:
    from types import ModuleType

    if not isinstance(module, ModuleType):
        raise TypeError(f"py_modules must be a list of file paths, URIs, or imported modules, got {type(module)}.")
    folders = list(getattr(module, "__path__", ()))
    if len(folders) == 1:
        return folders[0]
    if folders or not getattr(module, "__file__", None):
        raise ValueError(
            f"py_modules only supports modules in one folder or one file, and {module.__name__} has {len(folders)} folders"
        )
    return module.__file__


def replace_paths(env: Dict[str, Any]) -> List[Package]:
    """Put URIs in the place of an environment's local paths.

    Args:
        env: A job's environment as its user gave it; it is changed.

    Returns:
        The packages to upload.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: A path from which no package can be made.
    """
    excludes = env.pop("excludes", None) or []
    if not isinstance(excludes, list) or not all(isinstance(line, str) for line in excludes):
        raise TypeError(f"runtime_env['excludes'] must be of type List[str], got {type(excludes)}")
    packages = []
    folder = env.get("working_dir")
    if isinstance(folder, os.PathLike):
        folder = os.fspath(folder)
    if isinstance(folder, str) and folder and "://" not in folder:
        packages.append(of_working_dir(folder, excludes))
        env["working_dir"] = packages[-1].uri
    modules = env.get("py_modules")
    if modules is not None and not isinstance(modules, list):
        raise TypeError(f"py_modules must be a List of local paths, imported modules, or URIs, got {type(modules)}.")
    uris = []
    for module in modules or ():
        if isinstance(module, str) and "://" in module:
            uris.append(module)
            continue
        packages.append(of_module(module, excludes))
        uris.append(packages[-1].uri)
    if uris:
        env["py_modules"] = uris
    return packages
