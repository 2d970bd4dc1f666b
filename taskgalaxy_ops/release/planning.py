"""Which samples a release holds, in which split, and why the others are left out. Reads no image."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from taskgalaxy_ops.canonical import draw, fingerprint
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.records import Claim, Image, ImageId, Pair, PairId, Reason, Reject, Vote
from taskgalaxy_ops.release.material import Material
from taskgalaxy_ops.release.near_duplicates import near_duplicates
from taskgalaxy_ops.settings import Model, ReleaseSettings
from taskgalaxy_ops.storage.rows import rows_hash

RELEASE_VERSION = 1  # code version: one more whenever the same material gives other files
SPLITS = ("train", "validation", "test")

_PART_BYTES = 128 << 20  # of images in a Parquet file, counted as often as rows show them: it is made in memory
_PART_ROWS = 50_000
_SHOWN = 6  # samples on the card
_SINGLE_FILES = 3 + 3  # LLaVA's; card, history, manifest

_ID = re.compile(r"[0-9a-f]{64}")
_END = re.compile(r"[\s?.!。]+$")
_EXTENSIONS = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}


@dataclass(frozen=True)
class Plan:
    """A release before its files are made: in = samples + rejects."""

    material: Material
    settings: ReleaseSettings
    splits: Mapping[str, Sequence[Pair]]  # each in order of id
    rejects: Sequence[Reject]  # in order of pair
    copied: frozenset[ImageId]  # images that the release carries; the others are referred to

    @property
    def samples(self) -> list[Pair]:
        """All samples, in order of split, then id."""
        return [pair for split in SPLITS for pair in self.splits[split]]

    @cached_property
    def images(self) -> list[Image]:
        """The images of its samples, in order of id."""
        return [self.material.images[image] for image in sorted({pair.image for pair in self.samples})]

    def claims(self, image: ImageId) -> list[Claim]:
        """What the live sources say of an image, in order of name."""
        return sorted(self.material.claims[image], key=lambda claim: (claim.source, claim.file))

    def votes(self, pair: PairId) -> list[Vote]:
        """A pair's votes, in the settings' order of judges."""
        order = {judge.name: number for number, judge in enumerate(self.material.judges)}
        return sorted(self.material.votes.get(pair, ()), key=lambda v: (order.get(v.judge, len(order)), v.judge))

    def location(self, image: ImageId) -> str:
        """Where an image is found: a path within the release, or the URI of its bytes in the store.

        Of a ``file://`` URI the plain path is left: trainers and `datasets` open that, and not the URI.
        """
        if image not in self.copied:
            uri = self.material.image_uri(image)
            return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
        kind = self.material.images[image].format
        extension = _EXTENSIONS.get(kind, kind if re.fullmatch("[a-z0-9]{1,9}", kind) else "bin")
        return f"images/{image[:2]}/{image}.{extension}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """What is in it, in numbers."""
        return {
            "samples": len(self.samples),
            **{split: len(self.splits[split]) for split in SPLITS},
            "images": len(self.images),
            "images_copied": len(self.copied),
            "task_types": len({pair.task_type for pair in self.samples}),
        }

    @cached_property
    def parts(self) -> dict[str, list[list[Pair]]]:
        """The rows of each Parquet file, by split; splits without samples left out."""
        found: dict[str, list[list[Pair]]] = {}
        for split in SPLITS:
            parts: list[list[Pair]] = []
            room = 0
            for pair in self.splits[split]:
                size = self.shown_bytes(pair.image)
                if not parts or size > room or len(parts[-1]) == _PART_ROWS:
                    parts.append([])
                    room = _PART_BYTES
                parts[-1].append(pair)
                room -= size
            if parts:
                found[split] = parts
        return found

    def shown_bytes(self, image: ImageId) -> int:
        """Bytes that an image takes in a row: none where it is referred to."""
        return self.material.images[image].size if image in self.copied else 0

    @cached_property
    def shown(self) -> list[Pair]:
        """A few samples for the card, drawn by hash, each of another image and task type."""
        shown: list[Pair] = []
        for pair in sorted(self.samples, key=lambda pair: (draw("card", pair.pair), pair.pair)):
            if len(shown) < _SHOWN and all(pair.image != s.image and pair.task_type != s.task_type for s in shown):
                shown.append(pair)
        return shown

    @property
    def files(self) -> int:
        """How many files ``build`` gives."""
        return _SINGLE_FILES + sum(map(len, self.parts.values())) + len(self.copied) + len(self.shown)

    @cached_property
    def funnel(self) -> list[StageCounts]:
        """The stages' counts, the release's own last."""
        reasons = Counter(reject.reason for reject in self.rejects)
        total = len(self.samples)
        return [*self.material.stage_counts, StageCounts("release", total + len(self.rejects), total, reasons)]

    @cached_property
    def made_with(self) -> dict[str, Any]:
        """The settings that were read, in the form in which the data depend on them: no addresses, no prices."""
        return {
            "teacher": identity(self.material.teacher),
            "judges": [identity(judge) for judge in self.material.judges],
            "encoder": dict(self.material.encoder),
            "prompts": dict(self.material.prompts),
            "rules": {**self.material.rules, "vote.audit_share": self.material.audit_share},
            "release": self._rules(),
        }

    def _rules(self) -> dict[str, Any]:
        # Unset fields are left out, so that a later one changes no file of what was released before it.
        unset = {"variants"} if self.settings.variants is None else set()
        return self.settings.model_dump(mode="json", exclude=unset)

    @cached_property
    def content_hash(self) -> str:
        """Fingerprint of all that decides the files' bytes but history's: times, costs and version numbers are not."""
        material = self.material
        samples = ({"split": split, "pair": pair} for split in SPLITS for pair in self.splits[split])
        images = (
            {"image": image, "location": self.location(image.image), "claims": self.claims(image.image)}
            for image in self.images
        )
        content = {
            "code": RELEASE_VERSION,
            "samples": rows_hash(samples),
            "images": rows_hash(images),
            "votes": rows_hash({"pair": pair, "votes": self.votes(pair)} for pair in sorted(material.votes)),
            "verdicts": rows_hash(material.verdicts[pair] for pair in sorted(material.verdicts)),
            "funnel": self.funnel,
            "leaves": sorted(material.taxonomy.leaves),
            "levels": material.taxonomy.levels,
            "made_with": self.made_with,
            "simulated": material.simulated,
            "partial": material.partial,
            "pending": material.pending,
        }
        return fingerprint("release", content)


def identity(model: Model) -> dict[str, Any]:
    """What of a model its answers depend on, and the name that the data call it by."""
    return model.model_dump(
        mode="json",
        include={"name", "model", "revision", "temperature", "image_side", "image_quality", "simulated"},
    )


def plan(material: Material, settings: ReleaseSettings) -> Plan:
    """Select the rows of a release and split them by image. Every sample that is left out is a reject.

    In this order: variants that are not wanted, near-duplicate images (of those that have samples), questions asked
    twice of one image, the cap.
    Raises DamageError where a sample's image is unknown or no live source claims it.
    """
    pairs = sorted({pair.pair: pair for pair in material.samples}.values(), key=lambda pair: pair.pair)
    _check(pairs, material)
    rejects: list[Reject] = []
    pairs = _unless(pairs, Reason.OTHER_VARIANT, _of_other_variants(pairs, settings), rejects)
    hashes = {pair.image: material.images[pair.image].phash for pair in pairs}
    pairs = _unless(pairs, Reason.NEAR_DUPLICATE_IMAGE, _looking_alike(pairs, hashes, settings), rejects)
    pairs = _unless(pairs, Reason.DUPLICATE_PAIR, _asked_before(pairs), rejects)
    pairs = _unless(pairs, Reason.OVER_CAP, _over_cap(pairs, settings.cap), rejects)
    splits: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        splits[split_of(pair.image, settings)].append(pair)
    sizes = {pair.image: material.images[pair.image].size for pair in pairs}
    copied = _copied(sizes, settings.copy_images_up_to)
    return Plan(material, settings, splits, sorted(rejects, key=lambda reject: reject.pair or ""), copied)


def split_of(image: ImageId, settings: ReleaseSettings) -> str:
    """An image's split: drawn by its hash, so that it is in one only, and stays there as others come and go."""
    drawn = draw("split", image)
    if drawn < settings.test:
        return "test"
    return "validation" if drawn < settings.test + settings.validation else "train"


def normal_question(question: str) -> str:
    """What two questions share that ask the same: compatibility forms, case, blanks and the end's marks aside."""
    return _END.sub("", " ".join(unicodedata.normalize("NFKC", question).casefold().split()))


def _check(pairs: Iterable[Pair], material: Material) -> None:
    for pair in pairs:
        if not _ID.fullmatch(pair.pair) or not _ID.fullmatch(pair.image):
            raise DamageError(f"sample {pair.pair!r} of image {pair.image!r}: ids are 64 hex digits. Run `verify`.")
        if pair.image not in material.images:
            raise DamageError(f"sample {pair.pair}: its image {pair.image} is not registered. Run `verify`.")
        if not material.claims.get(pair.image):
            raise DamageError(f"sample {pair.pair}: no live source claims its image {pair.image}. Generate again.")


def _unless(pairs: Sequence[Pair], reason: Reason, out: Mapping[PairId, str], rejects: list[Reject]) -> list[Pair]:
    """The pairs that are not ``out``; those that are become rejects with their detail."""
    rejects.extend(
        Reject("release", pair.image, pair.task_type, reason, out[pair.pair], pair.variant, pair.pair)
        for pair in pairs
        if pair.pair in out
    )
    return [pair for pair in pairs if pair.pair not in out]


def _of_other_variants(pairs: Iterable[Pair], settings: ReleaseSettings) -> dict[PairId, str]:
    if settings.variants is None:
        return {}
    shown = f"release.variants: {', '.join(settings.variants)}"
    return {pair.pair: shown for pair in pairs if pair.variant not in settings.variants}


def _looking_alike(
    pairs: Iterable[Pair], hashes: Mapping[ImageId, str], settings: ReleaseSettings
) -> dict[PairId, str]:
    alike = near_duplicates(hashes, settings.near_duplicate_bits)
    return {pair.pair: f"of {alike[pair.image]}" for pair in pairs if pair.image in alike}


def _asked_before(pairs: Iterable[Pair]) -> dict[PairId, str]:
    """Expects the pairs in order of id: the smallest stands."""
    first: dict[tuple[ImageId, str, str], PairId] = {}
    again = {}
    for pair in pairs:
        standing = first.setdefault((pair.image, pair.variant, normal_question(pair.question)), pair.pair)
        if standing != pair.pair:
            again[pair.pair] = f"of {standing}"
    return again


def _over_cap(pairs: Iterable[Pair], cap: int | None) -> dict[PairId, str]:
    """Each task type takes one sample of every image, in order of hash, before it takes a second of any."""
    if cap is None:
        return {}
    drawn: dict[str, list[tuple[float, PairId, ImageId]]] = defaultdict(list)
    for pair in pairs:
        drawn[pair.task_type].append((draw("cap", pair.pair), pair.pair, pair.image))
    over = {}
    for rows in drawn.values():
        taken: Counter[ImageId] = Counter()
        ranked = []
        for number, pair_id, image in sorted(rows):
            ranked.append((taken[image], number, pair_id))
            taken[image] += 1
        over.update({pair_id: f"release.cap is {cap}" for _, _, pair_id in sorted(ranked)[cap:]})
    return over


def _copied(sizes: Mapping[ImageId, int], limit: int) -> frozenset[ImageId]:
    """Images in order of id while they fit; from the first that does not, all are referred to."""
    copied = set()
    for image in sorted(sizes):
        limit -= sizes[image]
        if limit < 0:
            break
        copied.add(image)
    return frozenset(copied)
