"""Where the DAG files and the plugin lie, and how an existing Airflow gets the DAG files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taskgalaxy_ops import RELEASED_VERSION
from taskgalaxy_ops.errors import TaskGalaxyError

_PACKAGE = Path(__file__).resolve().parents[2]
_PACKAGED = "_dags"  # the folder of the installed package that setup.py puts dags/ into
_MARK = b"# Copied by `taskgalaxy airflow dags` of taskgalaxy-ops "


class DagFilesError(TaskGalaxyError):
    """The DAG files are not where they should be, or a file is in the way of one; the message names it and the fix."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What was done with one DAG file."""

    name: str
    done: str  # copied, linked, or kept: it was there already


def checkout() -> Path | None:
    """The repository's root, where the package runs from a checkout; None where it is installed."""
    root = _PACKAGE.parent
    whole = (root / "dags" / "galaxy_defaults.py").is_file() and (root / "plugins" / "galaxy_plugin.py").is_file()
    return root if whole else None


def dags_folder() -> Path:
    """The folder with the DAG files: the checkout's, else the installed package's. Raises DagFilesError."""
    root = checkout()
    folder = root / "dags" if root else _PACKAGE / _PACKAGED
    if not (folder / "galaxy_defaults.py").is_file():
        raise DagFilesError(f"{folder} holds no DAG files. Install taskgalaxy-ops anew, from a wheel or a checkout.")
    return folder


def plugins_folder() -> Path | None:
    """The checkout's folder with the plugin; None where it is installed: Airflow finds that by its entry point."""
    root = checkout()
    return root / "plugins" if root else None


def dag_ids() -> list[str]:
    """The DAGs that TaskGalaxy brings: one a file. Raises DagFilesError."""
    return sorted(path.stem for path in dags_folder().glob("galaxy_*.py") if path.stem != "galaxy_defaults")


def place_dags(target: Path, *, link: bool = False, force: bool = False) -> list[Placed]:
    """Copy each DAG file, and the module that they share, into the folder ``target``; it is made if it is missing.

    A copy ends with a line that holds a hash of all before it. So the next call knows a copy that nobody has changed,
    and replaces it by a newer one. link: make symbolic links instead of copies. force: overwrite what is in the way.
    Raises DagFilesError, before anything is written, if a file of that name differs and is no unchanged copy and no
    link to a file of ours; OSError if the folder cannot be written.
    """
    sources = sorted(dags_folder().glob("*.py"))
    in_the_way = [] if force else [path.name for path in sources if not _is_ours(target / path.name, path)]
    if in_the_way:
        raise DagFilesError(
            f"{target}: {', '.join(in_the_way)} would be overwritten, and did not come from here or was changed since. "
            "Nothing was written. Move it away, or overwrite it with --force."
        )
    target.mkdir(parents=True, exist_ok=True)
    return [_place(source, target / source.name, link) for source in sources]


def _place(source: Path, path: Path, link: bool) -> Placed:
    if path.exists() and not path.is_symlink() and path.samefile(source):  # `target` is the folder of the DAG files
        return Placed(source.name, "kept")
    if link:
        if path.is_symlink() and path.readlink() == source:
            return Placed(source.name, "kept")
        with _replacing(path) as new:
            new.symlink_to(source)
        return Placed(source.name, "linked")
    content = _marked(source.read_bytes())
    if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
        return Placed(source.name, "kept")
    with _replacing(path) as new:
        new.write_bytes(content)
    return Placed(source.name, "copied")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under; what was written takes the place of ``path`` in one step: Airflow may be reading it."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _is_ours(path: Path, source: Path) -> bool:
    """Whether nothing of somebody else's is lost when ``path`` is replaced by the DAG file ``source``."""
    if path.is_symlink():
        return path.readlink() == source or path.readlink().parts[-3:-1] == (_PACKAGE.name, _PACKAGED)
    if not path.exists():
        return True
    if not path.is_file():
        return False
    content = path.read_bytes()
    begin = content.rfind(_MARK)
    return content == source.read_bytes() or (begin >= 0 and content == _marked(content[:begin], content[begin:]))


def _marked(content: bytes, like: bytes | None = None) -> bytes:
    """A DAG file's content with the last line of a copy. like: a copy's last line, whose version is taken."""
    version = like[len(_MARK) :].partition(b":")[0] if like else RELEASED_VERSION.encode()
    digest = hashlib.sha256(content).hexdigest().encode()
    return content + _MARK + version + b": the next call replaces it, unless it was changed. sha256 " + digest + b"\n"
