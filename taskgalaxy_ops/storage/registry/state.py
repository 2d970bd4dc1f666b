"""The registry's state after an entry of its log: sources, claims, image shards, and the images taken down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from heapq import merge
from typing import Any

from taskgalaxy_ops.records import Claim, FileReject, ImageId, Reason
from taskgalaxy_ops.storage.log import LogEntry
from taskgalaxy_ops.storage.shards import StageOutput, StageOutputs, TableRef

INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """The table of one source's claims of one image shard's images, in order of image."""

    home: str  # the image shard's id; stores of every version call the column so
    key: str
    rows: int
    rows_hash: str
    sha256: str

    @property
    def table(self) -> TableRef:
        return TableRef(self.key, self.rows, self.rows_hash, self.sha256)


@dataclass(frozen=True, slots=True)
class Claims:
    """A scan's claims: their number, and the table of their parts."""

    rows: int
    parts: TableRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The result of a source's last scan."""

    source: str
    location: str
    claims: Claims
    rejects: TableRef
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was listed: suffixes, limit, licence …
    files: TableRef | None = None  # the listing, with versions; None: an older version kept none
    left_out: Mapping[str, int] | None = None  # by kind, what the scan passed by; None: an older version counted none
    pages: TableRef | None = None  # of files with several pages or frames; None: there are none, or none were counted

    def to_json(self) -> dict[str, Any]:
        """The form that the registry's log holds."""
        body = asdict(self)
        return {name: value for name, value in body.items() if name not in {"left_out", "pages"} or value is not None}

    @property
    def tables(self) -> list[TableRef]:
        """The tables that the scan names, but for those of its parts."""
        return [ref for ref in (self.claims.parts, self.rejects, self.files, self.pages) if ref is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageShard:
    """A fixed set of images that stages work on together, with one journal and one lease."""

    id: str
    images: TableRef
    output: str  # the fingerprint in the ingest marker's name
    cut: int  # number of images at first; ``images`` has fewer once some were taken down
    levels: bool = False  # whether ``images`` says at which levels deep grey is shown; an older version's does not
    referred: bool = False  # whether a scan formed it that copies nothing, so that the store may lack its images' files

    @classmethod
    def formed(cls, id: str, images: TableRef, output: str, *, referred: bool) -> ImageShard:
        """A new image shard, of all images of a table."""
        return cls(id=id, images=images, output=output, cut=images.rows, levels=True, referred=referred)

    def stage_output(self) -> StageOutput:
        """Ingest's output for this shard."""
        return StageOutput(self.id, INGEST, self.id, self.output)

    def to_json(self) -> dict[str, Any]:
        """The form that the registry's log holds, in which an image shard is called a home."""
        found = {"home": self.id, "images": asdict(self.images), "output": self.output, "cut": self.cut}
        return {**found, **{name: True for name in ("levels", "referred") if getattr(self, name)}}


class RegistryState:
    """The registry's state after the entry ``number``. The tables of parts are read when they are first needed."""

    def __init__(self, stage_outputs: StageOutputs, number: int, entries: list[LogEntry]) -> None:
        self._stage_outputs = stage_outputs
        self._entries = entries
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegistryState) and self._entries == other._entries

    @cached_property
    def scans(self) -> dict[str, Scan]:
        return read_scans(self._entries)

    @cached_property
    def shards(self) -> list[ImageShard]:
        shards = [
            read_image_shard(raw)
            for entry in self._entries
            if entry.body["kind"] == "scan"
            for raw in entry.body["homes"]
        ]
        return sorted(shards, key=lambda shard: shard.id)

    @cached_property
    def origins(self) -> dict[str, str]:
        cut = [(entry.body["source"], entry.body["homes"]) for entry in self._entries if entry.body["kind"] == "scan"]
        return {raw["home"]: source for source, shards in cut for raw in shards}

    @cached_property
    def denied(self) -> frozenset[ImageId]:
        return frozenset(i for entry in self._entries if entry.body["kind"] == "takedown" for i in entry.body["images"])

    @cached_property
    def taken_down(self) -> dict[str, list[ImageId]]:
        by_shard: dict[str, list[ImageId]] = {}
        for entry in self._entries:
            if entry.body["kind"] == "takedown":
                for shard, ids in entry.body["homes"].items():
                    by_shard[shard] = sorted([*by_shard.get(shard, []), *ids])
        return by_shard

    @cached_property
    def parts(self) -> dict[str, list[ClaimPart]]:
        """The parts of each live source's claims, in order of image shard."""
        return {name: self._stage_outputs.read(scan.claims.parts, ClaimPart) for name, scan in self.scans.items()}

    @cached_property
    def _by_shard(self) -> dict[str, list[ClaimPart]]:
        by_shard: dict[str, list[ClaimPart]] = {}
        for parts in self.parts.values():
            for part in parts:
                by_shard.setdefault(part.home, []).append(part)
        return by_shard

    def parts_of(self, shard: str) -> list[ClaimPart]:
        """The parts of all live sources for one image shard, in order of source."""
        return self._by_shard.get(shard, [])

    def wholly_claimed(self, shard: ImageShard) -> bool:
        """Whether all images of a shard are known to be claimed without reading tables, or no source refers to it."""
        parts = self.parts_of(shard.id)
        whole = any(part.rows == shard.images.rows for part in parts)
        return not parts or (whole and shard.id not in self.taken_down)


def read_scans(entries: Iterable[LogEntry]) -> dict[str, Scan]:
    """The last scan of each source that was not removed since, in order of source."""
    scans: dict[str, Scan] = {}
    for entry in entries:
        if entry.body["kind"] == "remove":
            scans.pop(entry.body["source"], None)
        elif entry.body["kind"] == "scan":
            scans[entry.body["source"]] = read_scan(entry.body)
    return dict(sorted(scans.items()))


def read_scan(body: Mapping[str, Any]) -> Scan:
    """A scan from the body of its entry."""
    claims = Claims(body["claims"]["rows"], TableRef(**body["claims"]["parts"]))
    files = TableRef(**body["files"]) if body.get("files") else None
    pages = TableRef(**body["pages"]) if body.get("pages") else None
    return Scan(
        source=body["source"],
        location=body["location"],
        claims=claims,
        rejects=TableRef(**body["rejects"]),
        settings=body.get("settings", {}),
        files=files,
        left_out=body.get("left_out"),
        pages=pages,
    )


def read_image_shard(raw: Mapping[str, Any]) -> ImageShard:
    """An image shard from the form that ``ImageShard.to_json`` returns."""
    return ImageShard(
        id=raw["home"],
        images=TableRef(**raw["images"]),
        output=raw["output"],
        cut=raw["cut"],
        levels=raw.get("levels", False),
        referred=raw.get("referred", False),
    )


def taken_down_reject(claim: Claim) -> FileReject:
    """The reject that replaces a claim once its image was taken down."""
    return FileReject(claim.source, claim.file, Reason.TAKEN_DOWN, "")


def merged_by_file(rejects: Iterable[FileReject], more: Iterable[FileReject]) -> Iterator[FileReject]:
    """``rejects``, which are in order of file, and ``more``, in any order, as one stream in order of file."""
    return merge(rejects, sorted(more, key=_file), key=_file)


def _file(reject: FileReject) -> str:
    return reject.file
