"""The batches in an image shard's journal: those that were submitted, or may have been, and their results.

A batch has up to three entries, which name it by its nonce. ``{"kind": "batch", "batch", "stage", "model", "mode",
"file", "requests", "blocks", "seen", "at", "run"}`` is the intent, written before the batch is created at the provider.
``{"kind": "batch_made", "batch", "id"}`` records the provider's id. ``{"kind": "batch_ended", "batch", "status",
"blocks": {block: [cost, calls, tokens]}, "again": {unit: how to ask for it next}}`` follows the batch's replies; with
the status ``void`` it says that the provider never got the batch. No unit of an open batch may be asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.storage.ledger_totals import Spent

KINDS = ("batch", "batch_made", "batch_ended")


@dataclass(slots=True)
class JournalBatches:
    """The batches of one image shard, as the entries that were folded so far tell them."""

    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by nonce: the intent
    ids: dict[str, str] = field(default_factory=dict)  # by nonce: the provider's id of an open batch, if it is known
    settled_blocks: dict[str, Mapping[str, Spent]] = field(default_factory=dict)  # by nonce of an ended one
    again: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by unit: how to ask for it next (a RetryPlan)
    _units: dict[str, frozenset[str]] = field(default_factory=dict)  # by nonce of an open batch

    @property
    def under_way(self) -> frozenset[str]:
        """The units of open batches, which may not be asked for."""
        return frozenset().union(*self._units.values())

    def of(self, nonce: str) -> Mapping[str, Spent] | None:
        """What the calls of a batch's blocks cost, by block; {} if the batch has no entry, None if it has not ended."""
        return None if nonce in self.open else self.settled_blocks.get(nonce, {})

    def fold(self, body: Mapping[str, Any], erased: Collection[str]) -> None:
        """Take in an entry of one of ``KINDS``. ``erased``: images that nothing may be kept about."""
        nonce = body["batch"]
        if body["kind"] == "batch" and nonce not in self.settled_blocks:
            self.open[nonce] = body = without(body, erased)
            self._units[nonce] = frozenset(unit for request in body["requests"].values() for unit in request["units"])
        elif body["kind"] == "batch_made":
            self.ids.setdefault(nonce, body["id"])
        elif body["kind"] == "batch_ended" and nonce not in self.settled_blocks:
            self.settled_blocks[nonce] = {block: Spent(*amount) for block, amount in body["blocks"].items()}
            self.again |= body["again"]
            self.ids.pop(nonce, None)
            self._units.pop(nonce, None)
            self.open.pop(nonce, None)

    def forget(self, units: Iterable[str]) -> None:
        """Drop what earlier batches said about these units: they are asked for as if for the first time."""
        for unit in units:
            self.again.pop(unit, None)

    def erase(self, images: Collection[str]) -> None:
        """Remove these images from the intents of open batches."""
        for nonce in list(self.open):
            self.fold(self.open[nonce], images)


def without(body: Mapping[str, Any], images: Collection[str]) -> Mapping[str, Any]:
    """The intent without what it asks about these images; the budget that those requests hold stays in it."""
    if not tells_of(body, images):
        return body
    requests = {
        name: {**{k: v for k, v in request.items() if k not in _ERASED}, "units": [], "types": [], "image": None}
        if _is_about(request, images)
        else request
        for name, request in body["requests"].items()
    }
    return {**body, "requests": requests}


def tells_of(body: Mapping[str, Any], images: Collection[str]) -> bool:
    """Whether an entry is the intent of a batch that asks about any of these images."""
    return body["kind"] == "batch" and any(_is_about(request, images) for request in body["requests"].values())


_ERASED = {"along", "further_images"}  # of a request that is about an image that was erased


def _is_about(request: Mapping[str, Any], images: Collection[str]) -> bool:
    return any(image in images for image in (request["image"], *request.get("further_images", ())))
