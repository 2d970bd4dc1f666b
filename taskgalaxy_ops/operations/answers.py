"""Reuse answers that are paid for: export them, import them into another store, and read kept replies again.

A file of answers is JSON Lines (gzip'd where its name ends in .gz), a reply a line as the journal keeps it
(docs/store-format.md). A unit's key is a hash of all that the model was shown, and of nothing else: an answer is
therefore valid in every store that asks the same.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from taskgalaxy_ops.errors import DamageError, SettingsError
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.generation.stages.asking import pure
from taskgalaxy_ops.generation.stages.blind import REQUEST as BLIND
from taskgalaxy_ops.models.reply import reply_text
from taskgalaxy_ops.models.request import MalformedReplyError, RequestItem, RequestTemplate
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Answer, Reason, Reply, is_id
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy.expand import expand_template
from taskgalaxy_ops.text import clean
from taskgalaxy_ops.workspace import Workspace

_Reader = Callable[[str | None, str | None], RequestTemplate]
_Replies = Mapping[str, Mapping[str, Any]]  # of a journal, by name
_NEW = Reply(
    reply="",
    stage="",
    model="",
    units=(),
    answers={},
    raw={},
    usage={},
    cost=0,
    list_cost=0,
    ceiling=0,
    block="",
    attempts=0,
    seen=0,
    at=0,
    seconds=0,
)


@dataclass(slots=True)
class Imported:
    """The outcome of an import, in replies and units."""

    read: int = 0  # replies in the file
    units: int = 0  # answers that are new here
    known: int = 0  # replies without an answer that is new here
    elsewhere: int = 0  # replies about images that this store does not have, or groups that it has not in one shard
    by_stage: dict[str, int] = field(default_factory=dict)  # new answers


def export(workspace: Workspace, out: Path, progress: Progress | None = None) -> int:
    """Write every reply that gives a current answer to a file, and return their number.

    The file is renamed into place when it is complete.
    """
    progress = progress or Silent()
    shards = workspace.journals()
    progress.stage("export", len(shards), "journals")
    part = out.with_name(f"{out.name}.part")
    written = 0
    with _open(part, out.suffix == ".gz", "w") as file:
        for shard in shards:
            standing = Journal(workspace.store, shard).accepted_replies()
            for reply in {reply["reply"]: reply for reply in standing.values()}.values():
                file.write(json.dumps(reply, sort_keys=True) + "\n")
                written += 1
            progress.advance("export")
    part.replace(out)
    return written


def load(workspace: Workspace, path: Path, progress: Progress | None = None) -> Imported:
    """Import each answer of a file whose unit has no answer here, or only a terminal one such as an abstention.

    Imported answers cost nothing here, and are marked as imported. Importing twice changes nothing. Raises DamageError,
    naming the line, before anything of the file is imported.
    """
    progress = progress or Silent()
    readers = _readers(workspace)
    lines = sum(1 for _ in _lines(path, readers))  # every line is checked before any is imported
    imported = Imported(lines)
    progress.stage("import", lines, "replies")
    image_index = workspace.registry.known()
    by_shard: dict[str, list[Reply]] = {}
    for reply in _lines(path, readers):
        shard = keys.TAXONOMY_SHARD if reply.stage == "expand" else image_index.get(reply.image or "")
        # A group lies within an image shard: what is said of one that is cut apart here is never asked for.
        if shard is None or any(image_index.get(image) != shard for image in reply.further_images):
            imported.elsewhere += 1
        else:
            by_shard.setdefault(shard, []).append(reply)
        progress.advance("import")
    for shard, replies in by_shard.items():
        _take_over(workspace, shard, replies, imported)
    return imported


def _take_over(workspace: Workspace, shard: str, replies: list[Reply], found: Imported) -> None:
    journal = Journal(workspace.store, shard)
    replaced: set[str] = set()
    before = dict(journal.answers)
    for reply in replies:
        new = [unit for unit, answer in reply.answers.items() if _better(answer, before.get(unit))]
        if not new:
            found.known += 1
            continue
        replaced |= {reply.stage} if any(unit in before for unit in new) else set()
        before.update((unit, reply.answers[unit]) for unit in new)
        found.units += len(new)
        found.by_stage[reply.stage] = found.by_stage.get(reply.stage, 0) + len(new)
        journal.add(replace(reply, seen=journal.seen))
    _write(workspace, shard, journal, replaced)


def _better(answer: Answer, known: Answer | None) -> bool:
    return known is None or bool(known.terminal and not answer.terminal)


def _write(workspace: Workspace, shard: str, journal: Journal, replaced: set[str]) -> None:
    """Write the journal, and count edits of the stages in which a terminal answer was replaced.

    A stage output that was made of the old answers is then no longer valid. The edits are counted before the journal is
    written, because otherwise a process that is killed in between would leave it valid.
    """
    workspace.edits().replaced(shard, replaced)
    journal.flush()
    workspace.edits().replaced(shard, replaced)  # again, for outputs that a run computed between the two writes


@dataclass(slots=True)
class ReadAgain:
    """What reading the kept replies again gives."""

    answers: dict[str, int] = field(default_factory=dict)  # new answers, by stage
    malformed: dict[str, int] = field(default_factory=dict)  # units that had a malformed answer before, by stage
    altered: int = 0  # written pairs whose text an older parser altered, by dropping a backslash
    unreadable: int = 0  # written pairs that today's parser would not accept, and nobody can read again
    corrected: int = 0  # of the altered ones: those that were replaced, or in a dry run would be


def read_again(
    workspace: Workspace, progress: Progress | None = None, *, dry_run: bool = False, altered: bool = False
) -> ReadAgain:
    """Read the raw replies again with today's parser, for units without an answer, or with a malformed one.

    Asks no model, and changes no other answer, unless ``altered``: then what the model wrote replaces the written pairs
    whose text an older parser altered, and a run asks the judges about these anew. dry_run: only count.
    """
    progress = progress or Silent()
    readers = _readers(workspace)
    shards = workspace.journals()
    progress.stage("read again", len(shards), "journals")
    found = ReadAgain()
    for shard in shards:
        journal = Journal(workspace.store, shard)
        given = dict(journal.answers)
        malformed = {unit for unit, answer in given.items() if answer.terminal == Reason.MALFORMED}
        replaced: set[str] = set()
        replies = {raw["reply"]: raw for raw in journal.replies()}
        for raw in replies.values():
            for unit in malformed.intersection(raw["units"]):
                malformed.discard(unit)
                found.malformed[raw["stage"]] = found.malformed.get(raw["stage"], 0) + 1
            read = _read_again(raw, replies, readers)
            for unit, answer in _altered(journal, raw, replies, read):
                found.altered += answer is not None
                found.unreadable += answer is None
                if altered and answer is not None:
                    found.corrected += 1
                    replaced.add(raw["stage"])
                    journal.add(_reread_entry(raw, unit, answer, corrects=raw["reply"]))
            for unit, answer in read.items():
                known = given.get(unit)
                if raw["seen"] >= journal.forgotten(unit) and (known is None or known.terminal == Reason.MALFORMED):
                    replaced |= {raw["stage"]} if known else set()
                    found.answers[raw["stage"]] = found.answers.get(raw["stage"], 0) + 1
                    given[unit] = answer
                    journal.add(_reread_entry(raw, unit, answer))
        if not dry_run:
            _write(workspace, shard, journal, replaced)
        progress.advance("read again")
    return found


def altered_pairs(workspace: Workspace, shard: str) -> tuple[int, int]:
    """How many written pairs of an image shard an older parser altered, and how many today's would not accept.

    Pairs in question forms of packages that are not installed are left out.
    """
    journal, readers = Journal(workspace.store, shard), _readers(workspace)
    found: list[Answer | None] = []
    replies = {raw["reply"]: raw for raw in journal.replies()}
    for raw in (raw for raw in replies.values() if raw["stage"] == "write"):
        with suppress(SettingsError):
            found += [answer for _, answer in _altered(journal, raw, replies, _read_again(raw, replies, readers))]
    return sum(answer is not None for answer in found), sum(answer is None for answer in found)


def _altered(
    journal: Journal, raw: Mapping[str, Any], replies: _Replies, read: Mapping[str, Answer]
) -> Iterator[tuple[str, Answer | None]]:
    """The units of a reply of the teacher whose answer has another text than today's parser reads, and what it reads.

    None where it reads nothing: the text has more than one reading.
    """
    if raw["stage"] != "write" or not reply_text(_call(raw, replies)["raw"]):
        return
    for unit in raw["units"]:
        known = journal.answers.get(unit)
        if known is None or known.terminal or journal.sources.get(unit) != raw["reply"]:
            continue
        if unit not in read or read[unit].terminal:
            yield unit, None
        elif _is_altered(known, read[unit]):
            yield unit, read[unit]


def _is_altered(known: Answer, today: Answer) -> bool:
    """Whether a kept answer's text is another than the one that today's parser reads, but for special tokens."""
    kept, read = known.value or {}, today.value or {}
    texts = {name: kept[name] for name in read.keys() & kept.keys() if isinstance(kept[name], str)}
    return any(neutral(text) != read[name] for name, text in texts.items())


def _call(raw: Mapping[str, Any], replies: _Replies) -> Mapping[str, Any]:
    """The reply that holds the text of a journal's entry: itself, or the one that it was asked along with."""
    return replies.get((raw.get("note") or {}).get("asked_along", ""), raw)


def _read_again(raw: Mapping[str, Any], replies: _Replies, readers: Mapping[str, _Reader]) -> dict[str, Answer]:
    call = _call(raw, replies)
    if raw["stage"] not in readers or not raw["units"] or not (text := reply_text(call["raw"])):
        return {}
    reader, keys = readers[raw["stage"]](*_asked(raw)), list(raw["units"])
    if call is not raw:  # it is about some of the call's items
        reader = replace(reader, replies=readers[call["stage"]](None, None).replies)
        about = dict(zip(raw["note"]["numbers"], keys, strict=True))
        keys = [about.get(number, "") for number in range(1, len(call["units"]) + 1)]
    answers, _ = reader.parse([RequestItem(key, raw.get("image"), {}) for key in keys], text)
    return {unit: answer for unit, answer in answers.items() if unit}


def _reread_entry(raw: Mapping[str, Any], unit: str, answer: Answer, corrects: str = "") -> Reply:
    """A journal entry for an answer read from an earlier reply: no call, and with the time of that reply."""
    names = {"stage", "model", "block", "seen", "at", "image", "further_images", "simulated"}
    about = {name: raw[name] for name in names if name in raw}
    note = {"read_again": raw["reply"], **_noted(raw), **({"corrects": corrects} if corrects else {})}
    return replace(_NEW, reply=uuid.uuid4().hex, units=(unit,), answers={unit: answer}, note=note, **about)


def _readers(workspace: Workspace) -> Mapping[str, _Reader]:
    """By stage, what makes a template that reads an entry of a reply, given what `_asked` says of it; prompt and model
    make no difference for reading."""
    model = workspace.settings.teacher
    stages: dict[str, _Reader] = {name: partial(pure(name).reader, model) for name in ASKING}
    return {"expand": lambda *_: expand_template("", model), **stages}


def _asked(raw: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The question form that a reply was asked for in, and the kind of its request, where its note names them."""
    noted = _noted(raw)
    return noted.get("form"), noted.get("request")


def _noted(raw: Mapping[str, Any]) -> dict[str, str]:
    note = raw.get("note") or {}
    return {name: str(note[name]) for name in ("form", "request") if note.get(name) is not None}


def _open(path: Path, zipped: bool, mode: str) -> IO[str]:
    opener: Callable[..., Any] = gzip.open if zipped else open
    return opener(path, f"{mode}t", encoding="utf-8")  # type: ignore[no-any-return]


def _lines(path: Path, readers: Mapping[str, _Reader]) -> Iterator[Reply]:
    with _open(path, path.suffix == ".gz", "r") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _imported(json.loads(line), readers)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DamageError(
                    f"{path}, line {number}: no reply as `taskgalaxy answers export` writes it ({error!r}). "
                    "Nothing was taken over."
                ) from error


def _as_given(read: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """An answer with its texts as they were exported, so that votes on them stay votes on them.

    An older version may have let special tokens pass, which are treated in releases.
    """
    given = {name: value.get(name) for name, text in read.items() if isinstance(text, str)}
    return {**read, **{name: clean(text) for name, text in given.items() if isinstance(text, str)}}


def _entry(raw: Mapping[str, Any], value: Mapping[str, Any]) -> Any:
    """A kept answer as its template reads it: of one that asks for a list of texts, the list."""
    if raw["stage"] == "expand":
        return value["children"]
    return [value["answer"]] if _asked(raw)[1] == BLIND else value


def _imported(raw: Mapping[str, Any], readers: Mapping[str, _Reader]) -> Reply:
    """A line of a file as a journal entry. Its answers are untrusted, and checked as a model's reply is.

    Raises ValueError, TypeError or KeyError for anything that `export` would not write.
    """
    reader = readers[raw["stage"]](*_asked(raw))
    units = tuple(raw["units"])
    answers: dict[str, Answer] = {}
    for unit, given in raw["answers"].items():
        if unit not in units or not all(map(is_id, units)):
            raise ValueError("an answer to no unit of the reply")
        if given.get("terminal"):
            answers[unit] = Answer(terminal=Reason(given["terminal"]), detail=str(given.get("detail", ""))[:300])
        else:
            value = given["value"]
            try:
                read = reader.read({}, _entry(raw, value))
                answers[unit] = Answer(_as_given(read.value or {}, value))
            except MalformedReplyError as error:
                raise ValueError(f"an answer of {raw['stage']}: {error}") from error
    further = tuple(raw.get("further_images", ()))
    if not all(map(is_id, (*(() if raw.get("image") is None else (raw["image"],)), *further))):
        raise ValueError("`image` and `further_images` must be ids")
    if not isinstance(raw["raw"], dict) or not isinstance(raw["reply"], str):
        raise TypeError("`raw` must be an object, `reply` a text")
    note = {"imported": True, "cost": int(raw["cost"]), "usage": dict(raw["usage"])}
    note |= _noted(raw)
    if (told := raw.get("note") or {}).get("asked_along"):
        numbers = [int(number) for number in told["numbers"]]
        if len(numbers) != len(units):
            raise ValueError("`numbers` must say which items of the request the units are")
        note |= {"asked_along": str(told["asked_along"]), "numbers": numbers}
    return Reply(
        reply=raw["reply"],
        stage=raw["stage"],
        model=str(raw["model"]),
        units=units,
        answers=answers,
        raw=raw["raw"],
        usage={},
        cost=0,
        list_cost=0,
        ceiling=0,
        block="",
        attempts=0,
        seen=0,
        at=float(raw["at"]),
        seconds=float(raw["seconds"]),
        image=raw.get("image"),
        further_images=further,
        simulated=bool(raw.get("simulated")),
        note=note,
    )
