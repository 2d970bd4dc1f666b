"""Data sets of Hugging Face's ``datasets``: saved to disk (``save_to_disk``), or on the hub by their id."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.sources.kinds import Place
from taskgalaxy_ops.sources.kinds.bucket import BucketSource
from taskgalaxy_ops.sources.kinds.containers import Containers
from taskgalaxy_ops.sources.kinds.tables import OPTIONS, ArrowSource, ContainerTables, ParquetSource

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SPLITS, _STATE = "dataset_dict.json", "state.json"
_FILES = "**.parquet"


class HubKind:
    """Opens a saved data set, or one of the hub. Options: of tables, and which of the hub's files."""

    options = {  # noqa: RUF012 - never changed
        **OPTIONS,
        "revision": "of a data set of the hub: its commit, tag or branch; left out: main",
        "files": f"of a data set of the hub: which Parquet files, e.g. data/train-*; left out: {_FILES}",
    }

    def __call__(self, place: Place) -> ContainerTables:
        if not place.rest.startswith("s3://") and not Path(place.rest).exists() and _ID.fullmatch(place.rest):
            return _of_hub(place)
        if odd := place.options.keys() & {"revision", "files"}:
            raise SourceError(f"source {place.source!r}: {place.rest} is no id of the hub: remove {', '.join(odd)}.")
        return _saved(place)


opened = HubKind()


def _saved(place: Place) -> ContainerTables:
    """The files that a saved data set names, split by split; others (caches, older saves) are no part of it."""
    splits = _read(place, _SPLITS)
    folders = [f"{_plain(place, split)}/" for split in splits.get("splits") or ()] if splits else [""]
    names = []
    for folder in folders:
        state = _read(place, f"{folder}{_STATE}")
        if state is None or not isinstance(state.get("_data_files"), list):
            raise SourceError(
                f"source {place.source!r}: {place.rest} holds no data set that `save_to_disk` wrote "
                f"(there is no good {folder}{_STATE}).\n  For Parquet files write parquet:{place.rest}"
            )
        names += [f"{folder}{_plain(place, each.get('filename'))}" for each in state["_data_files"]]
    return ArrowSource(place, Containers(place, ArrowSource.suffixes, names))


def _read(place: Place, name: str) -> dict[str, Any] | None:
    """A JSON file of a saved data set, an object; None if there is none."""
    try:
        if place.rest.startswith("s3://"):
            raw = BucketSource(replace(place, location=place.rest)).open(name.encode())
        else:
            raw = Path(place.rest, name).read_bytes()
        read = json.loads(raw)
        if not isinstance(read, dict):
            raise ValueError("it is no object")
        return read
    except (NotFoundError, FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise SourceError(f"source {place.source!r}: {place.rest}: {name} cannot be read ({error}).") from error


def _plain(place: Place, name: Any) -> str:
    """A name that a file of the data set states: of a file beside it, and no path."""
    if not isinstance(name, str) or "/" in name or "\\" in name or name in {"", ".", ".."}:
        raise SourceError(f"source {place.source!r}: {place.rest} names {name!r}, which is no file beside it.")
    return name


def _of_hub(place: Place) -> ContainerTables:
    """The Parquet files of a data set of the hub, fetched into Hugging Face's cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise SourceError(
            f"source {place.source!r}: {place.location} needs the extra `hub`: pip install 'taskgalaxy-ops[hub]'"
        ) from error
    files = place.options.get("files", _FILES)
    try:
        folder = snapshot_download(
            place.rest, repo_type="dataset", revision=place.options.get("revision"), allow_patterns=[files]
        )
    except Exception as error:
        raise SourceError(
            f"source {place.source!r}: the hub's data set {place.rest} cannot be fetched ({error}).\n"
            "  Look whether its id and revision are right; a gated one needs HF_TOKEN."
        ) from error
    below = (path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.parquet"))
    names = sorted(name for name in below if fnmatchcase(name, files))
    if not names:
        raise SourceError(
            f"source {place.source!r}: the hub's data set {place.rest} has no Parquet file that fits {files!r}.\n"
            "  Name others by the option `files`, or its branch of Parquet files: revision refs/convert/parquet."
        )
    return ParquetSource(place, Containers(replace(place, rest=folder), ParquetSource.suffixes, names))
