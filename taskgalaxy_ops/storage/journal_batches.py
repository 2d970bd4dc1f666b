"""What an image shard's journal knows of batches: those that were submitted, or may have been, and what came of them.

Three kinds of entries, by the batch's nonce. ``{"kind": "batch", "batch", "stage", "model", "mode", "file", "requests",
"blocks", "seen", "at", "run"}`` is the intent, written before the provider is told; ``{"kind": "batch_made", "batch",
"id"}`` names what the provider made of it; ``{"kind": "batch_ended", "batch", "status", "blocks": {block: [cost, calls,
tokens]}, "again": {unit: how it is to be asked next}}`` comes after its replies. Of one whose status is ``void`` the
provider never heard. Units of a batch that has not ended may not be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.storage.ledger_totals import Spent

KINDS = ("batch", "batch_made", "batch_ended")


@dataclass(slots=True)
class JournalBatches:
    """The batches of an image shard."""

    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by nonce: the intent
    ids: dict[str, str] = field(default_factory=dict)  # of open ones, where it is known
    record_actual: dict[str, Mapping[str, Spent]] = field(default_factory=dict)  # of those that ended, by block
    again: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by unit: how it is to be asked next
    _units: dict[str, frozenset[str]] = field(default_factory=dict)  # of open ones

    @property
    def under_way(self) -> frozenset[str]:
        """Units that may not be asked."""
        return frozenset().union(*self._units.values())

    def of(self, nonce: str) -> Mapping[str, Spent] | None:
        """What the blocks of a batch came to: nothing, where it was not even recorded; None: it is under way."""
        return None if nonce in self.open else self.record_actual.get(nonce, {})

    def fold(self, body: Mapping[str, Any], erased: Collection[str]) -> None:
        """Add an entry of one of these kinds."""
        nonce = body["batch"]
        if body["kind"] == "batch" and nonce not in self.record_actual:
            self.open[nonce] = body = without(body, erased)
            self._units[nonce] = frozenset(unit for told in body["requests"].values() for unit in told["units"])
        elif body["kind"] == "batch_made":
            self.ids.setdefault(nonce, body["id"])
        elif body["kind"] == "batch_ended" and nonce not in self.record_actual:
            self.record_actual[nonce] = {block: Spent(*amount) for block, amount in body["blocks"].items()}
            self.again |= body["again"]
            self.ids.pop(nonce, None)
            self._units.pop(nonce, None)
            self.open.pop(nonce, None)

    def forget(self, units: Iterable[str]) -> None:
        """Whatever came of these units, they are asked from the beginning."""
        for unit in units:
            self.again.pop(unit, None)

    def erase(self, images: Collection[str]) -> None:
        """What is open does not tell of these images any more."""
        for nonce in list(self.open):
            self.fold(self.open[nonce], images)


def without(body: Mapping[str, Any], images: Collection[str]) -> Mapping[str, Any]:
    """An intent that does not tell what it asked about these images; only what it holds for that."""
    if not tells_of(body, images):
        return body
    requests = {
        name: {**told, "units": [], "types": [], "image": None} if told["image"] in images else told
        for name, told in body["requests"].items()
    }
    return {**body, "requests": requests}


def tells_of(body: Mapping[str, Any], images: Collection[str]) -> bool:
    """Whether an entry is the intent of a batch that asks about any of these images."""
    return body["kind"] == "batch" and any(told["image"] in images for told in body["requests"].values())
