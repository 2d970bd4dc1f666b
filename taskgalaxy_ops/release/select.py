"""Select the samples of a release and their splits, with the reason why each other one is left out. Reads no image."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, starmap
from json.encoder import encode_basestring as quoted
from typing import Any

import numpy as np

from taskgalaxy_ops.extensions import QUESTION_FORMS, RELEASE_FORMATS
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.special_tokens import is_neutralised
from taskgalaxy_ops.records import ImageId, Reason, Reject
from taskgalaxy_ops.release import balance, groups
from taskgalaxy_ops.release.agreement import Ballots
from taskgalaxy_ops.release.choosing import choose
from taskgalaxy_ops.release.decontaminate.leaks import leak_lines, leave_out_leaks
from taskgalaxy_ops.release.inputs import ReleaseInputs
from taskgalaxy_ops.release.judge_fit import fit
from taskgalaxy_ops.release.judge_model import JudgeModel
from taskgalaxy_ops.release.near_duplicates import near_duplicates
from taskgalaxy_ops.release.near_groups import group_lines, marks, part_near_duplicates
from taskgalaxy_ops.release.repeats import leave_out_repeated
from taskgalaxy_ops.release.rows import Picture, Sample, image_line, sample_line, verdict_line
from taskgalaxy_ops.release.sqlite_staging import SPLITS, UNWANTED, canonical, database, lines_hash, load
from taskgalaxy_ops.release.voted_down import index_voted_down, load_voted_down
from taskgalaxy_ops.settings import Model, ReleaseSettings

RELEASE_VERSION = 3  # code version: one more whenever the same inputs give other files

_PART_BYTES = 128 << 20  # of images in a Parquet file; an image counts once for each row that contains it
_PART_ROWS = 50_000
_SHOWN = 6  # samples on the card
_UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one Parquet file: numbers ``first`` to ``last``; its largest image has ``largest`` bytes."""

    first: int
    last: int
    largest: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The number of images by source, by licence, and by (source, licence, attribution)."""

    sources: Counter[str] = field(default_factory=Counter)
    licences: set[str | None] = field(default_factory=set)  # as they are stated
    shown_licences: Counter[str] = field(default_factory=Counter)
    credits: Counter[tuple[str, str, str]] = field(default_factory=Counter)


@dataclass(frozen=True)
class Selection:
    """The samples and rejects of a release, before its files are made: accepted pairs = samples + rejects.

    A context manager: the rows lie in a temporary file, which is deleted at its end.
    """

    inputs: ReleaseInputs
    settings: ReleaseSettings
    rows: sqlite3.Connection
    ballots: Ballots

    def __enter__(self) -> Selection:
        return self

    def __exit__(self, *_: object) -> None:
        self.rows.close()

    def samples(self, first: int = 1, last: int | None = None) -> Iterator[Sample]:
        """The samples with numbers ``first`` to ``last`` (None: the last one), in order of split, then id."""
        return self._samples(first, self._ends["test"] if last is None else last, "c.rowid")

    def split(self, name: str) -> Iterator[Sample]:
        """The samples of a split, in order of id."""
        return self.samples(*self.range_of(name))

    def by_picture(self, split: str) -> Iterator[Sample]:
        """The samples of a split in order of their image, then id."""
        return self._samples(*self.range_of(split), "c.picture, c.rowid")

    def _samples(self, first: int, last: int, order: str) -> Iterator[Sample]:
        return map(
            Sample._make,
            self.rows.execute(
                "SELECT pair, p.image, task_type, variant, question, answer, reasoning, further_turns, further_images, "
                f"votes, claims, location, p.held * p.copied, c.picture, context, blind, {groups.IMAGES} "
                "FROM chosen c JOIN "
                f"pictures p ON p.rowid = c.picture WHERE c.rowid BETWEEN ? AND ? ORDER BY {order}",
                (first, last),
            ),
        )

    def range_of(self, split: str) -> tuple[int, int]:
        """The numbers of a split's first and last sample."""
        before = {"train": 0, "validation": self._ends["train"], "test": self._ends["validation"]}
        return before[split] + 1, self._ends[split]

    @cached_property
    def _ends(self) -> dict[str, int]:
        """The number of the last sample of each split."""
        ends: dict[str, int] = {}
        for number, name in enumerate(SPLITS):
            (ends[name],) = self.rows.execute("SELECT count(*) FROM chosen WHERE split <= ?", (number,)).fetchone()
        return ends

    def rejects(self) -> Iterator[Reject]:
        """The accepted pairs that are left out, with the reason, in order of pair."""
        rows = self.rows.execute(
            "SELECT image, task_type, reason, detail, variant, pair FROM pairs WHERE reason IS NOT NULL ORDER BY pair"
        )
        return (Reject("release", *row) for row in rows)

    def pictures(self) -> Iterator[Picture]:
        """The images of its samples, in order of id."""
        columns = "image, width, height, format, size, lower(hex(phash)), levels, content, claims, context, location"
        return map(Picture._make, self.rows.execute(f"SELECT {columns} FROM pictures ORDER BY rowid"))

    def content(self, picture: int) -> str:
        """The sha256 of an image's file, by the image's number."""
        query = "SELECT coalesce(content, image) FROM pictures WHERE rowid = ?"
        return str(self.rows.execute(query, (picture,)).fetchone()[0])

    def copied(self) -> Iterator[tuple[int, ImageId, str]]:
        """Number, id and path of the images that the release contains, in order of id."""
        yield from self.rows.execute("SELECT rowid, image, location FROM pictures WHERE copied ORDER BY rowid")

    def referred(self) -> Iterator[ImageId]:
        """The images that the release only refers to, in order of id."""
        for (image,) in self.rows.execute("SELECT image FROM pictures WHERE NOT copied ORDER BY rowid"):
            yield image

    @property
    def altered(self) -> dict[str, int]:
        """How many of the release's images the teacher was shown otherwise than their files have them, by what differs.

        It is known once the Parquet files are made. Images that are only referred to do not count."""
        return dict(self.rows.execute("SELECT what, count(*) FROM altered GROUP BY what ORDER BY what"))

    @cached_property
    def counts(self) -> dict[str, int]:
        """The numbers of samples (in all and by split), images, copied images and task types."""
        ends = self._ends
        images, copied = self.rows.execute("SELECT count(*), total(copied) FROM pictures").fetchone()
        return {
            "samples": ends["test"],
            "train": ends["train"],
            "validation": ends["validation"] - ends["train"],
            "test": ends["test"] - ends["validation"],
            "images": images,
            "images_copied": int(copied),
            "task_types": len(self.task_types),
        }

    @cached_property
    def neutralised(self) -> int:
        """The number of samples whose text names special tokens, which are written with other brackets."""
        return sum(any(map(is_neutralised, (*chain(*s.turns), s.reasoning or ""))) for s in self.samples())

    @cached_property
    def has_conversations(self) -> bool:
        """Whether a sample has further turns."""
        query = "SELECT EXISTS (SELECT 1 FROM chosen WHERE further_turns IS NOT NULL)"
        return bool(self.rows.execute(query).fetchone()[0])

    @cached_property
    def has_groups(self) -> bool:
        """Whether a sample is about several images."""
        query = "SELECT EXISTS (SELECT 1 FROM chosen WHERE further_images IS NOT NULL)"
        return bool(self.rows.execute(query).fetchone()[0])

    @cached_property
    def images(self) -> dict[str, int]:
        """The number of images of each split."""
        numbers = dict(self.rows.execute("SELECT split, count(*) FROM pictures GROUP BY split"))
        return {name: numbers.get(number, 0) for number, name in enumerate(SPLITS)}

    @cached_property
    def task_types(self) -> dict[str, int]:
        """The number of samples of each task type that has any."""
        return dict(self.rows.execute("SELECT task_type, count(*) FROM chosen GROUP BY task_type"))

    @cached_property
    def claimed(self) -> Claimed:
        """The sources' claims on the images, counted. Grows with the number of different statements, not of images."""
        claimed_by = Claimed()
        for (text,) in self.rows.execute("SELECT claims FROM pictures"):
            claims = json.loads(text)
            claimed_by.sources.update({claim["source"] for claim in claims})
            claimed_by.licences.update(claim.get("licence") for claim in claims)
            statements = {
                (claim["source"], claim.get("licence") or _UNSTATED, claim.get("attribution") or _UNSTATED)
                for claim in claims
            }
            claimed_by.shown_licences.update({licence for _, licence, _ in statements})
            claimed_by.credits.update(statements)
        return claimed_by

    @cached_property
    def parts(self) -> dict[str, list[Part]]:
        """The Parquet files by split; splits without samples are left out."""
        by_split: dict[str, list[Part]] = {}
        room = 0
        sizes = self.rows.execute(
            f"SELECT c.rowid, c.split, p.held * p.copied + {groups.BYTES} FROM chosen c JOIN pictures p ON p.rowid = "
            "c.picture ORDER BY c.rowid"
        )
        for number, split, size in sizes:
            parts = by_split.setdefault(SPLITS[split], [])
            if not parts or size > room or number - parts[-1].first == _PART_ROWS:
                parts.append(Part(number, number, size))
                room = _PART_BYTES
            else:
                parts[-1] = Part(parts[-1].first, number, max(parts[-1].largest, size))
            room -= size
        return by_split

    @cached_property
    def shown(self) -> list[Sample]:
        """A few samples for the card, drawn by hash, each of a different image and task type."""
        shown: list[int] = []
        images, types = set(), set()
        drawn = self.rows.execute("SELECT rowid, picture, task_type FROM chosen ORDER BY draw('card', pair), pair")
        for number, image, task_type in drawn:
            if image not in images and task_type not in types:
                shown.append(number)
                images.add(image)
                types.add(task_type)
            if len(shown) == _SHOWN or len(types) == len(self.task_types):
                break
        drawn.close()
        return [next(self.samples(number, number)) for number in shown]

    @cached_property
    def funnel(self) -> list[StageCounts]:
        """The counts of all stages; the last one is the release's own."""
        rows = self.rows.execute("SELECT reason, count(*) FROM pairs WHERE reason IS NOT NULL GROUP BY reason")
        reasons = Counter(dict(rows))
        total = self.counts["samples"]
        return [*self.inputs.stage_counts, StageCounts("release", total + reasons.total(), total, reasons)]

    @cached_property
    def judge_model(self) -> JudgeModel | None:
        """What the votes say of the judges and of pairs; None: fewer than two judges vote now so, now so."""
        return fit(self.ballots.all, [judge.name for judge in self.inputs.judges])

    @cached_property
    def blind(self) -> tuple[int, int]:
        """The number of samples that were answered without their image, and of those that were asked so."""
        right, tried = self.rows.execute("SELECT total(blind), count(blind) FROM chosen").fetchone()
        return int(right), tried

    @cached_property
    def verdicts(self) -> tuple[int, int]:
        """The number of pairs with a verdict, and of accepted ones."""
        voted, accepted = self.rows.execute("SELECT count(accepted), total(accepted) FROM pairs").fetchone()
        return voted, int(accepted)

    @cached_property
    def made_with(self) -> dict[str, Any]:
        """The settings that the data depend on: no addresses, no prices."""
        return {
            "teacher": identity(self.inputs.teacher),
            "judges": [identity(judge) for judge in self.inputs.judges],
            "encoder": dict(self.inputs.encoder),
            "prompts": dict(self.inputs.prompts),
            "rules": {**self.inputs.rules, "vote.audit_share": self.inputs.audit_share},
            "release": self._rules(),
            **self._brought(),
        }

    def _brought(self) -> dict[str, Any]:
        """Versions of the formats and the question forms that installed packages bring; nothing where all ship."""
        brought = {
            "release_formats": RELEASE_FORMATS.versions(self.settings.formats),
            "question_forms": QUESTION_FORMS.versions(self.inputs.rules.get("write.variants", ())),
        }
        return {what: versions for what, versions in brought.items() if versions}

    def _rules(self) -> dict[str, Any]:
        # Unset fields are left out, so that a field which a later version adds changes no file of older releases.
        left_out: dict[str, Any] = {"decontaminate": {"sscd"}}  # a path; the weights count, among the inputs' rules
        if self.settings.variants is None:
            left_out["variants"] = True
        return self.settings.model_dump(mode="json", exclude=left_out)

    @cached_property
    def content_hash(self) -> str:
        """Fingerprint of all that determines the files' bytes, except history.json's times, costs and versions."""
        return self._content(RELEASE_VERSION, self.made_with)

    def content_by(self, code: int) -> str:
        """The same as an earlier code version made it. Version 1 had no setting ``images``, and the sources' files."""
        rules = {name: value for name, value in self._rules().items() if name != "images" or code > 1}
        return self._content(code, {**self.made_with, "release": rules})

    def _content(self, code: int, made_with: Mapping[str, Any]) -> str:
        inputs = self.inputs
        content = {
            "code": code,
            "samples": lines_hash(self._sample_lines()),
            "images": lines_hash(map(image_line, self.pictures())),
            "votes": lines_hash(self._vote_lines()),
            "verdicts": lines_hash(self._verdict_lines()),
            "funnel": self.funnel,
            "leaves": sorted(inputs.taxonomy.leaves),
            "levels": inputs.taxonomy.levels,
            "made_with": made_with,
            "simulated": inputs.simulated,
            "partial": inputs.partial,
            "pending": inputs.pending,
            "targets": inputs.targets,
            **({"leaks": lines_hash(leak_lines(self.rows))} if inputs.benchmarks else {}),
            **({"near_duplicates": lines_hash(group_lines(self.rows))} if marks(self.settings) else {}),
        }
        return fingerprint("release", content)

    def _sample_lines(self) -> Iterator[bytes]:
        return (sample_line(sample, split) for split in SPLITS for sample in self.split(split))

    def _vote_lines(self) -> Iterator[bytes]:
        """``{"pair", "votes": [records.Vote]}`` of every pair that was voted on."""
        rows = self.rows.execute("SELECT pair, votes FROM pairs WHERE votes IS NOT NULL ORDER BY pair")
        return (canonical(f'{{"pair":{quoted(pair)},"votes":{votes}}}') for pair, votes in rows)

    def _verdict_lines(self) -> Iterator[bytes]:
        """``records.Verdict`` of every pair that has one; of a release without the column, without ``blind``."""
        blind = "blind" if self.settings.blind else "NULL"
        query = f"SELECT pair, accepted, approvals, counted, {blind} FROM pairs WHERE accepted NOT NULL ORDER BY pair"
        return starmap(verdict_line, self.rows.execute(query))


def identity(model: Model) -> dict[str, Any]:
    """The settings of a model that its answers depend on, and its name in the data."""
    return model.model_dump(
        mode="json",
        include={
            *("name", "model", "revision", "temperature", "image_side", "image_quality", "image_min_side", "simulated"),
            *("top_p", "seed", "stop", "reasoning_effort", "extra_body"),
        },
    )


def select_samples(inputs: ReleaseInputs, settings: ReleaseSettings) -> Selection:
    """Select the rows of a release and split them by image. Every accepted pair that is left out is a reject.

    Left out are, in this order: what people found wrong, variants that are not wanted, licences that are not allowed,
    what is in a benchmark, near-duplicate images (of those that have samples), questions asked twice of one image, what
    is about images of two splits, questions that a task type repeats, samples over the cap, what the balance leaves.
    Rows of one image shard at a time are in memory. The result must be closed, because it
    keeps a temporary file. Raises DamageError where a sample's image is unknown, or no live source claims it.
    """
    rows = database()
    try:
        judges = {judge.name: number for number, judge in enumerate(inputs.judges)}
        ballots = Ballots(inputs.audit_share)
        for shard in inputs.shards:
            load(rows, shard, settings, judges, ballots, inputs.teacher)
            load_voted_down(rows, shard)
        index_voted_down(rows)
        if settings.licences is not None:
            balance.leave_out_unlicensed(rows, settings.licences)
        if inputs.benchmarks and settings.decontaminate:
            leave_out_leaks(rows, inputs.benchmarks, settings.decontaminate)
        _leave_out_near_duplicates(rows, settings.near_duplicate_bits)
        part_near_duplicates(rows, inputs, settings)
        groups.leave_out_of_two_splits(rows)
        if settings.repeats is not None:
            leave_out_repeated(rows, settings.repeats, inputs.encode_questions)
        if settings.cap is not None:
            balance.leave_out_over_cap(rows, settings.cap)
        if settings.balance is not None:
            balance.balance(rows, settings.balance)
        choose(rows, inputs, settings)
    except BaseException:
        rows.close()
        raise
    return Selection(inputs, settings, rows, ballots)


def _leave_out_near_duplicates(rows: sqlite3.Connection, bits: int) -> None:
    if bits < 0:
        return
    rows.execute("CREATE TABLE alike (image TEXT PRIMARY KEY, standing TEXT) WITHOUT ROWID")
    if bits == 0:
        rows.execute(
            "INSERT INTO alike SELECT image, standing FROM (SELECT image, min(image) OVER (PARTITION BY phash) AS "
            "standing FROM images WHERE wanted) WHERE image <> standing"
        )
    else:
        rows.execute("CREATE TABLE ranked AS SELECT image, phash FROM images WHERE wanted ORDER BY image")
        stand_in = near_duplicates(_hashes(rows), bits)
        out = np.flatnonzero(stand_in >= 0)
        rows.executemany(
            "INSERT INTO alike SELECT a.image, b.image FROM ranked a, ranked b WHERE a.rowid = ? AND b.rowid = ?",
            ((int(row) + 1, int(stand_in[row]) + 1) for row in out),
        )
    rows.execute(
        "UPDATE pairs SET reason = ?, detail = 'of ' || standing FROM alike WHERE alike.image = pairs.image "
        f"AND coalesce(pairs.reason, '') NOT IN ({', '.join('?' * len(UNWANTED))})",
        (Reason.NEAR_DUPLICATE_IMAGE, *UNWANTED),
    )
    groups.leave_out_alike(rows)


def _hashes(rows: sqlite3.Connection) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The perceptual hashes ``(images, bytes)``, in order of image."""
    (number, width) = rows.execute("SELECT count(*), coalesce(max(length(phash)), 0) FROM ranked").fetchone()
    hashes = np.empty((number, width), np.uint8)
    for row, (phash,) in enumerate(rows.execute("SELECT phash FROM ranked ORDER BY rowid")):
        hashes[row] = np.frombuffer(phash, np.uint8)
    return hashes
