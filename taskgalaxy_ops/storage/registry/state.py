"""The registry as its log's entries up to a number make it: sources, claims, image shards, what was taken down."""

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
    """A table of a source's claims of the images of one image shard, in order of image."""

    home: str  # the image shard's id, by the name that the table's column has
    key: str
    rows: int
    rows_hash: str
    sha256: str

    @property
    def table(self) -> TableRef:
        return TableRef(self.key, self.rows, self.rows_hash, self.sha256)


@dataclass(frozen=True, slots=True)
class Claims:
    """A scan's claims: how many, and the table of their parts."""

    rows: int
    parts: TableRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A source as its last scan found it."""

    source: str
    location: str
    claims: Claims
    rejects: TableRef
    settings: Mapping[str, Any] = field(default_factory=dict)  # how it was looked for: suffixes, limit, licence …
    files: TableRef | None = None  # the listing, with versions; None: of a scan that kept none


@dataclass(frozen=True, slots=True)
class ImageShard:
    """A shard of images, and the place of their journal."""

    id: str
    images: TableRef
    output: str  # of the ingest marker
    cut: int  # images that it was cut with: ``images`` has fewer once some were taken down

    def stage_output(self) -> StageOutput:
        """What ingest left: its marker is the shard's registration."""
        return StageOutput(self.id, INGEST, self.id, self.output)

    def to_json(self) -> dict[str, Any]:
        """As the registry's log holds it, where an image shard is called an image shard."""
        return {"home": self.id, "images": asdict(self.images), "output": self.output, "cut": self.cut}


class RegistryState:
    """The registry at one number: what its entries come to. Tables of parts are read when they are first asked for."""

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
        found = [
            read_image_shard(raw)
            for entry in self._entries
            if entry.body["kind"] == "scan"
            for raw in entry.body["homes"]
        ]
        return sorted(found, key=lambda shard: shard.id)

    @cached_property
    def origins(self) -> dict[str, str]:
        cut = [(entry.body["source"], entry.body["homes"]) for entry in self._entries if entry.body["kind"] == "scan"]
        return {raw["home"]: source for source, shards in cut for raw in shards}

    @cached_property
    def denied(self) -> frozenset[ImageId]:
        return frozenset(i for entry in self._entries if entry.body["kind"] == "takedown" for i in entry.body["images"])

    @cached_property
    def taken_down(self) -> dict[str, list[ImageId]]:
        found: dict[str, list[ImageId]] = {}
        for entry in self._entries:
            if entry.body["kind"] == "takedown":
                for shard, ids in entry.body["homes"].items():
                    found[shard] = sorted([*found.get(shard, []), *ids])
        return found

    @cached_property
    def parts(self) -> dict[str, list[ClaimPart]]:
        """By live source, in order of image shard."""
        return {name: self._stage_outputs.read(scan.claims.parts, ClaimPart) for name, scan in self.scans.items()}

    @cached_property
    def _by_shard(self) -> dict[str, list[ClaimPart]]:
        found: dict[str, list[ClaimPart]] = {}
        for parts in self.parts.values():
            for part in parts:
                found.setdefault(part.home, []).append(part)
        return found

    def parts_of(self, shard: str) -> list[ClaimPart]:
        """Of all live sources, in order of source."""
        return self._by_shard.get(shard, [])

    def wholly_claimed(self, shard: ImageShard) -> bool:
        """Whether it is known, without reading, that all images of an image shard are claimed.

        Or no source refers to it.
        """
        parts = self.parts_of(shard.id)
        whole = any(part.rows == shard.images.rows for part in parts)
        return not parts or (whole and shard.id not in self.taken_down)


def read_scans(entries: Iterable[LogEntry]) -> dict[str, Scan]:
    found: dict[str, Scan] = {}
    for entry in entries:
        if entry.body["kind"] == "remove":
            found.pop(entry.body["source"], None)
        elif entry.body["kind"] == "scan":
            found[entry.body["source"]] = read_scan(entry.body)
    return dict(sorted(found.items()))


def read_scan(body: Mapping[str, Any]) -> Scan:
    claims = Claims(body["claims"]["rows"], TableRef(**body["claims"]["parts"]))
    files = TableRef(**body["files"]) if body.get("files") else None
    return Scan(
        source=body["source"],
        location=body["location"],
        claims=claims,
        rejects=TableRef(**body["rejects"]),
        settings=body.get("settings", {}),
        files=files,
    )


def read_image_shard(raw: Mapping[str, Any]) -> ImageShard:
    return ImageShard(raw["home"], TableRef(**raw["images"]), raw["output"], raw["cut"])


def taken_down_reject(claim: Claim) -> FileReject:
    """What is left of a claim once its image was taken down."""
    return FileReject(claim.source, claim.file, Reason.TAKEN_DOWN, "")


def merged_by_file(rejects: Iterable[FileReject], more: Iterable[FileReject]) -> Iterator[FileReject]:
    """Rejects in order of file, and others in any, as one stream in order of file."""
    return merge(rejects, sorted(more, key=_file), key=_file)


def _file(reject: FileReject) -> str:
    return reject.file
