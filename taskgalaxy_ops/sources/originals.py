"""The files of a store's images, as they were when they were registered: copies in the store, or, of sources that are
not copied (``copy: false``), what lies at the source, whose hash is checked each time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from taskgalaxy_ops.errors import NotFoundError, OriginError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import Claim, ImageId
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.context import by_image
from taskgalaxy_ops.sources.kinds import Source, found_source
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.image_index import ImageIndex
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.workspace import Workspace

_SHARDS_KEPT = 4  # whose claims are in memory: images are read shard by shard
_DETAIL = 200  # characters of what a source says of a file


def quoted(place: bytes) -> str:
    """A place within a source as the text that a claim holds."""
    return quote_from_bytes(place)


class Originals:
    """Reads images by id. Safe for several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Forget what the registry said and which sources are open."""
        self._sources: dict[str, Source] = {}
        self._referred = {shard.id for shard in self._workspace.registry.shards() if shard.referred}
        self._index: ImageIndex | None = None
        self._claims = lru_cache(_SHARDS_KEPT)(self._claims_of)

    def read(self, image: ImageId, shard: str | None = None) -> bytes:
        """An image's file. ``shard``: its image shard's id, where the caller knows it.

        Raises NotFoundError if the store has no such image, and OriginError if it is not copied and its source does
        not have it any more, has other bytes, or cannot be read.
        """
        try:
            return self._read(image, shard)
        except NotFoundError:
            with self._lock:
                self._begin()  # a scan may have found it elsewhere meanwhile; a file that was open may be replaced
            return self._read(image, shard)

    def _read(self, image: ImageId, shard: str | None) -> bytes:
        shard = shard or self._shard_of(image)
        return self._original(image, shard) if shard in self._referred else self._copy(image)

    def _shard_of(self, image: ImageId) -> str:
        """An image's shard; "" where it has none, or the store has a copy of every image."""
        if not self._referred:
            return ""
        with self._lock:  # the registry reads its tables when it is first asked
            if self._index is None:
                self._index = self._workspace.registry.known()
        return self._index.get(image) or ""

    def _copy(self, image: ImageId) -> bytes:
        return self._workspace.store.get(keys.blob(image))

    def references(self, shard: str, image: ImageId | None = None) -> list[Claim]:
        """The claims by which an image shard's images, or one of them, are read at their sources."""
        if shard not in self._referred:
            return []
        claims = self._claims(shard)
        found = [image] if image is not None else sorted(claims)
        # An image that another source copied is read from the store.
        return [claim for each in found if _only_referred(of := claims.get(each, [])) for claim in of]

    def keep_copy(self, image: ImageId) -> None:
        """See to it that the store has a copy, for what refers to it or copies it on. Raises as ``read``."""
        if (shard := self._shard_of(image)) not in self._referred:
            return
        try:
            self._workspace.store.age(keys.blob(image))
        except NotFoundError:
            self._workspace.store.put_if_absent(keys.blob(image), self.read(image, shard))

    def _claims_of(self, shard: str) -> dict[ImageId, list[Claim]]:
        with self._lock:
            return by_image(self._workspace.registry.claims_of(shard))

    def _original(self, image: ImageId, shard: str) -> bytes:
        why: list[str] = []
        for claim in self.references(shard, image):
            try:
                raw = self._source(claim.source).open(unquote_to_bytes(claim.place or ""))
                if sha256_hex(raw) == image:
                    return raw
                why.append(f"source {claim.source!r} has other bytes at {claim.file} than when it was scanned")
            except Exception as error:  # noqa: BLE001 - whatever a kind of source raises, the file cannot be read
                told = getattr(error, "why", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
                why.append(f"source {claim.source!r}: {claim.file}: {shown(told)[:_DETAIL]}")
        try:
            return self._copy(image)  # it was copied once, or another source copies it
        except NotFoundError:
            told = "; ".join(why) or "no source claims it any more"
            raise OriginError(
                f"image {image[:16]} is not copied, and its original cannot be read: {told}.\n"
                "  Bring the file back, or ingest the source again: what is gone there then leaves the next release."
            ) from None

    def _source(self, name: str) -> Source:
        with self._lock:
            if name not in self._sources:
                scan = self._workspace.registry.scans()[name]
                chosen = SourceSettings(location=scan.location, **scan.settings)
                self._sources[name] = found_source(name, chosen, self._workspace.s3_options)
            return self._sources[name]


def _only_referred(claims: Sequence[Claim]) -> bool:
    return all(claim.place is not None for claim in claims)


def originals(workspace: Workspace) -> Originals:
    """The workspace's reader of images, made when it is first asked for."""
    kept = workspace.__dict__
    if "originals" not in kept:
        kept["originals"] = Originals(workspace)
    found: Originals = kept["originals"]
    return found


def read_image(workspace: Workspace, image: ImageId, shard: str | None = None) -> bytes:
    """An image's file, as ``Originals.read``."""
    return originals(workspace).read(image, shard)
