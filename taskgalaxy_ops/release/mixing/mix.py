"""Mixes: reads the parts, draws, copies images, writes the formats, and says in ``mixture.json`` what went in.

The same mixture into the same folder goes on where an earlier run ended, and takes out what is not in it any more: rows
and images that were taken down, that another weight leaves out, and formats that are not asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.hashing import canonical_json
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import leading_id
from taskgalaxy_ops.release.base_data import LAYOUTS, BaseLayout, files_in
from taskgalaxy_ops.release.base_data.checking import Unusable
from taskgalaxy_ops.release.build import as_json, entry
from taskgalaxy_ops.release.copying import write_file
from taskgalaxy_ops.release.licences import UNKNOWN
from taskgalaxy_ops.release.mixing.pictures import IMAGES, Pictures
from taskgalaxy_ops.release.mixing.reading import PartRead, read_base, read_release, release_of
from taskgalaxy_ops.release.mixing.settings import Mixture, MixturePart
from taskgalaxy_ops.release.mixing.shares import taken, wanted
from taskgalaxy_ops.release.mixing.staging import Staging
from taskgalaxy_ops.release.mixing.writing import OWN, MixedRow, check_format, write
from taskgalaxy_ops.workspace import Workspace

MIXTURE = "mixture.json"
MIXTURE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPart:
    """What a part of a mixture gave."""

    name: str
    kind: str  # release or base
    location: str
    identity: str  # sha256: of the release's manifest; of base data's rows, without their pictures
    layout: str | None  # of base data
    layout_version: str | None  # of a package's layout
    rows: int  # that it holds
    usable: int  # rows that can be trained on; the pictures of those that were not drawn were not opened
    left_out: dict[str, int]  # the others, by reason
    neutralised: int  # rows with special tokens, which are written with other brackets; repeats count, too
    weight: float
    wanted: int  # rows, by its weight
    taken: int
    repeated: int  # of those taken, rows that are there once more
    share: float  # of the mixture
    licences: dict[str, int]  # rows taken under each
    simulated: bool

    @property
    def short(self) -> int:
        """The rows that it lacks of its share."""
        return self.wanted - self.taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A mixture that lies in a folder. rows_sha256: of its rows, whatever the format."""

    folder: Path
    samples: int
    images: int
    formats: tuple[str, ...]
    rows_sha256: str
    parts: tuple[MixedPart, ...]

    @property
    def unknown_licence(self) -> dict[str, int]:
        """The rows whose licence nobody states, by part."""
        return {part.name: part.licences[UNKNOWN] for part in self.parts if UNKNOWN in part.licences}


def mix(
    mixture: Mixture,
    folder: Path,
    formats: Sequence[str],
    workspace: Workspace | None = None,
    progress: Progress | None = None,
) -> Mixed:
    """Write a mixture into a folder. workspace: whose releases are parts; None: there is none of them.

    Raises SettingsError (a format that there is not, a folder of something else), SourceError (base data that cannot be
    read, or of which nothing can be used; no such release), DamageError (a release that is not whole).
    """
    for name in formats:
        check_format(name)
    progress = progress or Silent()
    layouts = _looked_for(mixture, workspace)
    _begin(folder, mixture)
    with Staging() as staging:
        read = [_read(staging, number, part, workspace, progress) for number, part in enumerate(mixture.parts)]
        staging.index()
        for number, each in enumerate(read):
            each.left_out[Unusable.REPEATED] += staging.drop_repeats(number)
        store = workspace.store if workspace else None
        with Pictures(folder, store, layouts) as pictures:
            _draw(staging, mixture, read)
            pictures.copy(staging, progress)
            while staging.fail():  # others are drawn instead of rows whose images cannot be opened
                _draw(staging, mixture, read)
                pictures.copy(staging, progress)
        mixed = _Written(staging, mixture, read)
        files = {
            path: _entry(folder / path)
            for name in dict.fromkeys(formats)
            for path in _written(name, folder, mixed, progress)
        }
        found = mixed.told(folder, tuple(dict.fromkeys(formats)))
        _sweep(folder, staging.images(), set(files))
    _end(found, mixture, files)
    return found


def _begin(folder: Path, mixture: Mixture) -> None:
    """Check that the folder is a mixture's, or empty, and say that one is being written."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MIXTURE).is_file():
        raise SettingsError(f"{folder} holds something else than a mixture. Name an empty folder, or a new one.")
    begun = {"version": MIXTURE_VERSION, "complete": False, "settings": mixture.model_dump(mode="json")}
    write_file(folder / MIXTURE, [as_json(begun)])


def _read(
    staging: Staging, number: int, part: MixturePart, workspace: Workspace | None, progress: Progress
) -> PartRead:
    if part.release is None:
        return read_base(staging, number, part, progress)
    assert workspace is not None
    return read_release(staging, number, part, workspace, progress)


def _looked_for(mixture: Mixture, workspace: Workspace | None) -> dict[str, BaseLayout]:
    """The layout of each file of base data, by its path; all parts are there, before the first is read."""
    found: dict[str, BaseLayout] = {}
    for part in mixture.parts:
        if part.release is None:
            files = files_in(part.name, part.layout, part.files)
            found |= dict.fromkeys([str(file.absolute()) for file in files], LAYOUTS.get(part.layout))
        elif workspace is None:
            raise SettingsError(f"part {part.name}: a release needs a store: name one in the settings.")
        else:
            release_of(part, workspace)
    return found


def _draw(staging: Staging, mixture: Mixture, read: Sequence[PartRead]) -> None:
    usable = [staging.usable(number) for number in range(len(read))]
    for number, (part, rows) in enumerate(zip(mixture.parts, usable, strict=True)):
        if not rows:
            why = _reasons(read[number].left_out + staging.failed(number))
            raise SourceError(
                f"part {part.name}: no row of {read[number].location} can be used ({why or 'there is none'}).\n"
                "  Look whether `images`, `layout` and the location are right, or leave the part out."
            )
    staging.draw(taken(mixture.parts, usable, mixture.samples))


def _reasons(left_out: Counter[str]) -> str:
    return "; ".join(f"{number:,}: {why}" for why, number in left_out.most_common() if number)


class _Written:
    """The drawn rows, as they are written and told."""

    def __init__(self, staging: Staging, mixture: Mixture, read: Sequence[PartRead]) -> None:
        self._staging, self._mixture, self._read = staging, mixture, read
        simulated = any(each.simulated for each in read)
        self._marks = [
            {"source": part.name, **({"simulated": each.simulated} if simulated else {})}
            for part, each in zip(mixture.parts, read, strict=True)
        ]
        self._digest = hashlib.sha256()
        self._counts: Counter[int] = Counter()
        for row in staging.rows():
            self._counts[row.part] += 1
            images = [image.rpartition("/")[2].partition(".")[0] for image in row.images]
            self._digest.update(canonical_json([row.key, row.said, images, self._marks[row.part]]) + b"\n")

    def __call__(self) -> Iterator[MixedRow]:
        for row in self._staging.rows():
            yield MixedRow(row.key, row.said, row.images, self._marks[row.part])

    def told(self, folder: Path, formats: tuple[str, ...]) -> Mixed:
        samples = self._counts.total()
        usable = [self._staging.usable(number) for number in range(len(self._read))]
        asked = wanted(self._mixture.parts, usable, self._mixture.samples)
        return Mixed(
            folder=folder,
            samples=samples,
            images=len(self._staging.images()),
            formats=formats,
            rows_sha256=self._digest.hexdigest(),
            parts=tuple(self._part(number, usable[number], asked[number], samples) for number in range(len(asked))),
        )

    def _part(self, number: int, usable: int, asked: int, samples: int) -> MixedPart:
        part, read, count = self._mixture.parts[number], self._read[number], self._counts[number]
        left_out = {str(why): rows for why, rows in (read.left_out + self._staging.failed(number)).items() if rows}
        return MixedPart(
            name=part.name,
            kind=read.kind,
            location=read.location,
            identity=read.identity,
            layout=part.layout if part.release is None else None,
            layout_version=LAYOUTS.version(part.layout) if part.release is None else None,
            rows=read.rows,
            usable=usable,
            left_out=dict(sorted(left_out.items())),
            neutralised=read.neutralised,
            weight=part.weight,
            wanted=asked,
            taken=count,
            repeated=count - self._staging.distinct(number),
            share=round(count / samples, 6),
            licences=dict(sorted(self._staging.licences(number).items())),
            simulated=read.simulated,
        )


def _written(name: str, folder: Path, rows: _Written, progress: Progress) -> list[str]:
    progress.stage(name, 1, "formats")
    files = write(name, folder, rows)
    progress.advance(name)
    return files


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return entry(opened)


def _sweep(folder: Path, images: set[str], files: set[str]) -> None:
    """Delete what an earlier run left that is not the mixture's any more; what others put beside stays."""
    for file in folder.glob(f"{IMAGES}/*/*"):
        path = file.relative_to(folder).as_posix()
        if path not in images and (leading_id(file.name) or file.suffix == ".part"):
            file.unlink()
    for pattern in OWN:
        for file in folder.glob(pattern):
            if file.relative_to(folder).as_posix() not in files:
                file.unlink()


def _end(found: Mixed, mixture: Mixture, files: dict[str, Any]) -> None:
    told = asdict(found)
    del told["folder"]
    manifest = {
        "version": MIXTURE_VERSION,
        "complete": True,
        "settings": mixture.model_dump(mode="json"),
        **told,
        "licences": dict(sorted(sum((Counter(part.licences) for part in found.parts), Counter()).items())),
        "unknown_licence": found.unknown_licence,
        "base_data_decontaminated": False,
        "files": files,
    }
    write_file(found.folder / MIXTURE, [as_json(json.loads(json.dumps(manifest)))])
