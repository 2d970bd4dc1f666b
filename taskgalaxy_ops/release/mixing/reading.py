"""Reads the parts of a mixture into its staging, and counts what cannot be used, by reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.generation.forms import Texts
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.special_tokens import is_neutralised, neutral
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.release.base_data import BaseRow, files_in
from taskgalaxy_ops.release.base_data.checking import Unusable, checked_rows, image_file
from taskgalaxy_ops.release.base_data.files import without_bytes
from taskgalaxy_ops.release.copying import manifest_of
from taskgalaxy_ops.release.formats.layouts import Who, said_as
from taskgalaxy_ops.release.licences import UNKNOWN
from taskgalaxy_ops.release.mixing.pictures import HELD, LOST, PATH, STORED
from taskgalaxy_ops.release.mixing.settings import LATEST, MixturePart
from taskgalaxy_ops.release.mixing.staging import Staged, Staging
from taskgalaxy_ops.release.published_rows import opened, stored_picture
from taskgalaxy_ops.release.releases_log import Published, chosen
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

# Of a release's Parquet.
_COLUMNS = frozenset(
    {"id", "image", "variant", "question", "answer", "reasoning", "licences", "further_turns", "further_images"}
)
_TOGETHER = 1000  # rows between two words on progress


@dataclass(kw_only=True)
class PartRead:
    """What a part held. identity: of its content: a release's manifest; of base data, its rows, not its pictures."""

    kind: str  # release or base
    location: str
    identity: str = ""
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    neutralised: int = 0  # rows with special tokens, which are written with other brackets
    simulated: bool = False


def read_base(staging: Staging, number: int, part: MixturePart, progress: Progress) -> PartRead:
    """Read base data. Raises SourceError where it is not of its layout."""
    found = PartRead(kind="base", location=", ".join(part.files))
    digest = hashlib.sha256()
    files = files_in(part.name, part.layout, part.files)
    folder = Path(part.images or ".").expanduser().absolute()
    progress.stage(part.name, len(files), "files")
    for file in files:
        staging.add(number, _usable(part, file, folder, found, digest, progress))
        progress.advance(part.name)
    found.identity = digest.hexdigest()
    return found


def _usable(
    part: MixturePart, file: Path, folder: Path, found: PartRead, digest: Any, progress: Progress
) -> Iterator[Staged]:
    for number, row, turns in checked_rows(part.name, part.layout, file):
        row_hash = _hash(row)
        digest.update(row_hash.encode())
        found.rows += 1
        if found.rows % _TOGETHER == 0:
            progress.advance(part.name, 0, rows=_TOGETHER)
        if isinstance(turns, Unusable):
            found.left_out[turns] += 1
            continue
        images = _refs(row, file, number, partial(image_file, folder, follow_links=part.follow_links))
        if isinstance(images, Unusable):
            found.left_out[images] += 1
            continue
        found.neutralised += any(is_neutralised(text) for _, text in turns)
        key = f"{part.name}:{row.id or row_hash[:16]}"
        yield Staged(row_hash, key, turns, images, (part.licence or UNKNOWN,))


def _hash(row: BaseRow) -> str:
    """What a row is drawn by: what it says and names, wherever it lies."""
    said = [row.id, row.turns, row.images, row.held]
    # Halves of characters have no bytes; rows that have any are left out, but counted in the identity.
    return sha256_hex(json.dumps(said, separators=(",", ":")).encode())


def _refs(row: BaseRow, file: Path, number: int, find: Callable[[str], Path | Unusable]) -> tuple[str, ...] | Unusable:
    if row.held:
        return tuple(f"{HELD}:{file.absolute()}:{number:012d}:{place}" for place in range(row.held))
    refs = []
    for named in row.images:
        path = find(named)
        if isinstance(path, Unusable):
            return path
        refs.append(f"{PATH}:{path}")
    return tuple(refs)


def release_of(part: MixturePart, workspace: Workspace) -> Published:
    """The release that a part names. Raises SourceError where there is none."""
    return chosen(workspace, None if part.release == LATEST else part.release, f"release mix, part {part.name}")


def read_release(
    staging: Staging, number: int, part: MixturePart, workspace: Workspace, progress: Progress
) -> PartRead:
    """Read a release's training split from the store, without its images.

    Raises SourceError where there is no such release, DamageError where it cannot be read.
    """
    one = release_of(part, workspace)
    manifest = json.loads(manifest_of(workspace.store, one))
    found = PartRead(
        kind="release",
        location=f"{workspace.store.url} {one.name}",
        identity=one.manifest_sha256,
        simulated=bool(manifest["simulated"]),
    )
    files = list(workspace.store.list(f"{keys.release(one.version)}data/train-"))
    progress.stage(part.name, len(files), "files")
    for listed in files:
        staging.add(number, _samples(one, opened(workspace.store, listed), manifest["files"], found))
        progress.advance(part.name)
    return found


def _samples(one: Published, file: Any, listed: Mapping[str, Any], found: PartRead) -> Iterator[Staged]:
    try:
        for batch in file.iter_batches(columns=without_bytes(file, _COLUMNS), use_threads=False):
            for row in batch.to_pylist():
                found.rows += 1
                shown = [row["image"], *(row.get("further_images") or ())]
                images = [_ref(one, image["path"], listed) for image in shown]
                licences = tuple(sorted({licence or UNKNOWN for licence in row["licences"] or [None]}))
                yield Staged(row["id"], row["id"], _said(row), tuple(images), licences)
    except (OSError, KeyError, ValueError) as error:
        raise DamageError(f"release {one.name} cannot be read ({error}). Run `taskgalaxy verify`.") from error


def _said(row: Mapping[str, Any]) -> list[tuple[Who, str]]:
    further = tuple((turn["question"], turn["answer"]) for turn in row.get("further_turns") or ())
    said = said_as(row["variant"], Texts(row["question"], row["answer"], row["reasoning"], further))
    return [(who, neutral(text)) for who, text in said]


def _ref(one: Published, location: str, listed: Mapping[str, Any]) -> str:
    if location in listed:
        return f"{STORED}:{keys.release(one.version)}{location}:{listed[location]['sha256']}"
    key = stored_picture(location)
    return f"{STORED}:{key}:" if key else f"{LOST}:{location}"
