"""The rows of a release in a temporary SQLite file, in which they are chosen, sorted and counted.

Votes and claims are stored as JSON that is canonical except for Unicode's normal form: keys sorted, no blanks, no
nulls. The lines that are hashed are joined from these strings, and ``canonical`` brings them into the normal form.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from json.encoder import encode_basestring as quoted
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.hashing import canonical_json, draw
from taskgalaxy_ops.models.rendering import MOST_BYTES_A_PIXEL, scaled
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Claim, ImageId, Pair, PairId, Reason, images_in, is_id, turns_as_text, turns_in
from taskgalaxy_ops.release.agreement import Ballots
from taskgalaxy_ops.release.inputs import ReleaseInputs, ShardRows
from taskgalaxy_ops.settings import Model, ReleaseSettings
from taskgalaxy_ops.sources.context import by_image, context_of
from taskgalaxy_ops.text import normal_question

SPLITS = ("train", "validation", "test")

EXTENSIONS: Mapping[str, str] = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}

_CACHE_KIB = 4 << 10  # of the file's pages; sorting needs the same again

# pairs: every pair with a verdict, and those of people's answers; ``image`` and the columns after it are null if it
# is no sample; ``reason`` is null if it is not left out. further: the images of samples about several, after the first.
# images: those of samples; ``held``: about the bytes that the release has of one. blobs: the images as they are
# released, so that each is read once. altered: in what models were shown an image otherwise than its file.
# voted_down: other answers to questions.
_SCHEMA = """
CREATE TABLE pairs (pair TEXT, votes TEXT, accepted INTEGER, approvals INTEGER, counted INTEGER, blind INTEGER,
    image TEXT, task_type TEXT, variant TEXT, question TEXT, answer TEXT, reasoning TEXT, further_turns TEXT,
    further_images TEXT, reason TEXT, detail TEXT);
CREATE TABLE further (pair TEXT, place INTEGER, image TEXT, PRIMARY KEY (pair, place)) WITHOUT ROWID;
CREATE TABLE images (image TEXT, width INTEGER, height INTEGER, format TEXT, size INTEGER, phash BLOB, levels TEXT,
    content TEXT, claims TEXT, context TEXT, split INTEGER, wanted INTEGER, held INTEGER);
CREATE TABLE blobs (picture INTEGER PRIMARY KEY, raw BLOB);
CREATE TABLE altered (picture INTEGER, what TEXT, PRIMARY KEY (picture, what)) WITHOUT ROWID;
CREATE TABLE voted_down (pair TEXT, image TEXT, further_images TEXT, task_type TEXT, variant TEXT, question TEXT,
    answer TEXT, reasoning TEXT, share REAL);
CREATE TABLE files (path TEXT, size INTEGER, sha256 TEXT);
"""

# For these an image's sample is left out, whatever other images there are: it is in no other's way.
UNWANTED = (Reason.FOUND_WRONG, Reason.OTHER_VARIANT, Reason.BENCHMARK_IMAGE, Reason.BENCHMARK_QUESTION)

_NO_VERDICT = (None,) * 4
_NO_SAMPLE = (None,) * 10

_NUMBER = [field.name for field in fields(Pair)].index("number")  # in rows of records.Pair
_FURTHER, _REASON = 7, 8  # in the columns of a sample after those of its verdict


def database() -> sqlite3.Connection:
    """An empty database with the tables of a release, in a file that is deleted when it is closed."""
    # For the name "", SQLite makes a temporary file below TMPDIR, and unlinks it at once.
    connection = sqlite3.connect("", isolation_level=None)
    connection.executescript(
        f"PRAGMA page_size = 16384; PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA temp_store = FILE; "
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA
    )
    connection.create_function("draw", 2, draw, deterministic=True)
    connection.execute("BEGIN")  # and no end: nothing has to outlive this, and pages are written where there is no room
    return connection


def canonical(text: str) -> bytes:
    """The canonical form of JSON that has its keys sorted, no blanks and no nulls."""
    # If a part is not in the normal form, the whole text is not.
    return text.encode() if unicodedata.is_normalized("NFC", text) else canonical_json(json.loads(text))


def lines_hash(lines: Iterable[bytes]) -> str:
    """SHA-256 of rows in canonical JSON: the same as ``storage.parquet.rows_hash`` of the records."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()


def load(
    found: sqlite3.Connection,
    shard: ShardRows,
    settings: ReleaseSettings,
    judges: Mapping[str, int],
    ballots: Ballots,
    teacher: Model,
) -> None:
    """Insert the rows of an image shard into the database, and count its votes in ``ballots``.

    found: the database. judges: their index by name. teacher: whose pictures are released. Samples that people found
    wrong, those of other variants, and questions asked twice of one image, become rejects.
    Raises DamageError where a sample's image is unknown or no live source claims it.
    """
    verdicts = {pair: rest for pair, *rest in _rows(shard.verdicts)}
    # Planted errors have votes and no verdict: they are no pairs of the teacher.
    votes = {pair: cast for pair, cast in _votes(shard.votes, judges).items() if pair in verdicts}
    for pair, cast in votes.items():
        ballots.add(pair, [(judge, vote) for _, judge, vote, _ in cast])
    samples = _samples(shard, settings)
    found.executemany(
        f"INSERT INTO pairs VALUES ({_places(16)})",
        (
            (
                pair,
                f"[{','.join(vote for *_, vote in votes[pair])}]" if pair in votes else None,
                *verdicts.get(pair, _NO_VERDICT),
                *samples.get(pair, _NO_SAMPLE),
            )
            for pair in {**samples, **verdicts, **votes}
        ),
    )
    found.executemany(
        "INSERT INTO further VALUES (?, ?, ?)",
        ((pair, *each) for pair, row in samples.items() for each in enumerate(images_in(row[_FURTHER]), 1)),
    )
    found.executemany(f"INSERT INTO images VALUES ({_places(13)})", _images(shard, samples, settings, teacher))


def _places(count: int) -> str:
    return ", ".join("?" * count)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _votes(table: pa.Table, judges: Mapping[str, int]) -> dict[PairId, list[tuple[int, str, int | None, str]]]:
    """Each pair's votes in the judges' order: index of the judge, its name, the vote, and the record as JSON."""
    by_pair: dict[PairId, list[tuple[int, str, int | None, str]]] = {}
    for pair, judge, vote, reason, audit in _rows(table):
        said = "" if vote is None else f',"vote":{vote}'
        text = (
            f'{{"audit":{"true" if audit else "false"},"judge":{quoted(judge)},"pair":{quoted(pair)},'
            f'"reason":{quoted(reason)}{said}}}'
        )
        by_pair.setdefault(pair, []).append((judges.get(judge, len(judges)), judge, vote, text))
    for cast in by_pair.values():
        cast.sort(key=lambda vote: vote[:2])
    return by_pair


def _samples(shard: ShardRows, settings: ReleaseSettings) -> dict[PairId, tuple[Any, ...]]:
    """By pair, the columns of a sample's row after those of its verdict; in order of id."""
    known = {*shard.images["image"].to_pylist()}
    claimed = {claim.image for claim in shard.claims}
    variants = None if settings.variants is None else f"release.variants: {', '.join(settings.variants)}"
    first: dict[tuple[str, ...], PairId] = {}
    columns: dict[PairId, tuple[Any, ...]] = {}
    corrections = {pair.pair: astuple(pair) for pair in shard.corrections}
    judged = sorted((row for row in _rows(shard.samples) if row[0] not in corrections), key=_first_answers_first)
    for pair, image, task_type, variant, question, answer, reasoning, text, _, others in [
        *corrections.values(),
        *judged,
    ]:
        further = turns_in(text)
        for each in (image, *images_in(others)):
            _check(pair, each, known, claimed)
        reason = detail = None
        # Of several samples with the same question, a person's correction is kept, else the one with the answer that
        # was given first, and of these the one with the smallest id.
        asked = (image, variant, normal_question(question), *(normal_question(later) for later, _ in further))
        standing = pair if pair in shard.found_wrong else first.setdefault(asked, pair)
        if pair in shard.found_wrong:
            reason, detail = Reason.FOUND_WRONG, shard.found_wrong[pair]
        elif settings.variants is not None and variant not in settings.variants:
            reason, detail = Reason.OTHER_VARIANT, variants
        elif standing != pair:
            reason, detail = Reason.DUPLICATE_PAIR, f"of {standing}"
        # What an older version let pass is treated here, as `write` treats it today.
        turns = turns_as_text([(neutral(later), neutral(reply)) for later, reply in further])
        said = (neutral(question), neutral(answer), None if reasoning is None else neutral(reasoning), turns)
        columns[pair] = (image, task_type, variant, *said, others, reason, detail)
    return columns


def _first_answers_first(row: Sequence[Any]) -> tuple[int, PairId]:
    """The order of rows of records.Pair."""
    return row[_NUMBER] or 1, row[0]


def _check(pair: PairId, image: ImageId, known: set[ImageId], claimed: set[ImageId]) -> None:
    if not is_id(pair) or not is_id(image):
        raise DamageError(f"sample {pair!r} of image {image!r}: ids are 64 hex digits. Run `verify`.")
    if image not in known:
        raise DamageError(f"sample {pair}: its image {image} is not registered. Run `verify`.")
    if image not in claimed:
        raise DamageError(f"sample {pair}: no live source claims its image {image}. Generate again.")


def _images(
    shard: ShardRows, samples: Mapping[PairId, Sequence[Any]], settings: ReleaseSettings, teacher: Model
) -> Iterator[tuple[Any, ...]]:
    claims = by_image(shard.claims)
    shown, wanted = set[ImageId](), set[ImageId]()
    for row in samples.values():
        own = {row[0], *images_in(row[_FURTHER])}
        shown |= own
        wanted |= set() if row[_REASON] in UNWANTED else own
    for image, width, height, kind, size, phash, *later in _rows(shard.images):
        if image in shown:
            said = f"[{','.join(map(_claim, claims[image]))}]"
            context = context_of(claims[image], settings.context)
            stated = (said, json.dumps(context, ensure_ascii=False, separators=(",", ":")) if context else None)
            split = SPLITS.index(split_of(image, settings))
            held = size if settings.images == "original" else _rendition_bytes(width, height, kind, size, teacher)
            yield image, width, height, kind, size, bytes.fromhex(phash), *later, *stated, split, image in wanted, held


def _rendition_bytes(width: int, height: int, kind: str, size: int, teacher: Model) -> int:
    """About the bytes of an image as the teacher was sent it, without making it; mostly a little more than it has."""
    across, down = scaled(width, height, teacher.image_side)
    most = max(1, int(MOST_BYTES_A_PIXEL * max(across, teacher.image_min_side) * max(down, teacher.image_min_side)))
    return min(size, most) if kind in {"jpeg", "mpo"} else most


def _claim(claim: Claim) -> str:
    values = (
        ("attribution", claim.attribution),
        ("file", claim.file),
        ("image", claim.image),
        ("licence", claim.licence),
        ("origin", claim.origin),
        ("source", claim.source),
    )
    return "{" + ",".join(f'"{name}":{quoted(value)}' for name, value in values if value is not None) + "}"


def split_of(image: ImageId, settings: ReleaseSettings) -> str:
    """An image's split, drawn by its hash: it does not depend on which other images there are."""
    drawn = draw("split", image)
    if drawn < settings.test:
        return "test"
    return "validation" if drawn < settings.test + settings.validation else "train"


def location(inputs: ReleaseInputs, images: str, image: ImageId, kind: str, copied: bool) -> str:
    """The location of an image: a path within the release, or a URI in the store.

    A ``file://`` URI becomes a path, because trainers and `datasets` open paths, and no such URIs.
    """
    if not copied:
        uri = inputs.image_uri(image)
        return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    if images == "rendition":
        kind = "jpeg"
    extension = EXTENSIONS.get(kind, kind if re.fullmatch("[a-z0-9]{1,9}", kind) else "bin")
    return f"images/{image[:2]}/{image}.{extension}"
