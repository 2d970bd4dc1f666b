"""Explain an image, a pair or sample, or a task type: what each stage made of it, or where and why it was rejected.

Reads only the image shard that contains it: ids are found in indexes, which are made when they are first needed, and
kept. Asks no model, and encodes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import NotFoundError, TaskGalaxyError
from taskgalaxy_ops.generation import run as generation_run
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.stage_keys import StageKeys, differences
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, NAMES, STAGE
from taskgalaxy_ops.generation.stages.asking import lacking, prompt_name
from taskgalaxy_ops.generation.stages.vote import judges_of, rule_by, vote_unit
from taskgalaxy_ops.generation.stages.write import answer_units, asked_for, first_answers, further_answers
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.operations.explain_task_type import explain_task_type, node_tables
from taskgalaxy_ops.operations.shard_state import ShardState, matched, store_state
from taskgalaxy_ops.records import Claim, FileReject, Match, Pair, Reject, Relevant, begins_id
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.release.published_rows import ReleaseRows, keep_left_out, left_out
from taskgalaxy_ops.storage.id_index import lookup
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.marker_index import marker_summaries
from taskgalaxy_ops.storage.parquet import columns
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

_LEAST_DIGITS = 4  # of an id that is asked about
_KEY_DIGITS = 16  # of an id, in an index
_NAMED = ("pair", "image", "further_images")  # of a review: its pair says so
_IDS = pa.schema([("id", pa.uint64())])
_SHOWN = 8


def explain(workspace: Workspace, what: str) -> dict[str, Any]:
    """Explain the thing of this name. what: the beginning of an image's or a pair's id (a sample's id is its pair's), a
    task type (its path, or the last levels of it), or a file's path within its source.

    Returns ``{"image", "claims", "matches"}``, ``{"task_type", …}`` or ``{"rejected"}``. Raises TaskGalaxyError if
    nothing has this name, or more than one thing.
    """
    look = workspace.snapshot()
    shards = {shard.id: shard for shard in look.registry.shards()}
    found: list[tuple[str, str, Callable[[], dict[str, Any]]]] = []  # kind, name, its story
    for path in _task_types(look, what):
        found.append(("task type", path, lambda path=path: explain_task_type(look, path, list(shards.values()))))  # type: ignore[misc]
    if begins_id(what, _LEAST_DIGITS):
        for image, shard in _images(look, shards.values(), what):
            found.append(("image", image, lambda shard=shard, image=image: _image(look, shard, image)))  # type: ignore[misc]
        for pair, shard in _pairs(look, shards, what):
            found.append(("pair", pair.pair, lambda shard=shard, pair=pair: _image(look, shard, pair.image, pair)))  # type: ignore[misc]
        if not found and (pair_id := _corrected_by(look, what)):
            return explain(look, pair_id)
    if not found:
        found = _files(look, shards.values(), what)
    if len(found) != 1:
        names = "; ".join(f"{kind} {name}" for kind, name, _ in found[:_SHOWN])
        raise TaskGalaxyError(
            f"explain {what!r}: {len(found)} things go by that name{': ' + names if names else ''}. Give the beginning "
            "of an image's or a pair's id (the page shows them), a task type, or a file's path within its source. "
            "A pair of a stage that is not finished is found by its image."
        )
    return found[0][2]()


# --- what goes by a name


def _span(what: str) -> tuple[int, int]:
    """The first and the last key in an index of the ids that begin with ``what``."""
    start = what[:_KEY_DIGITS]
    return int(start.ljust(_KEY_DIGITS, "0"), 16), int(start.ljust(_KEY_DIGITS, "f"), 16)


def _keys_of(raw: bytes, column: str) -> pa.Table:
    ids = columns(raw, [column])[column].to_pylist()
    return pa.table({"id": pa.array([int(each[:_KEY_DIGITS], 16) for each in ids], pa.uint64())})


def _name(file: str) -> str:
    """The id of a file's name in the index of names."""
    return sha256_hex(file.encode())


def _names_of(raw: bytes) -> pa.Table:
    names = columns(raw, ["file"])["file"].to_pylist()
    return pa.table({"id": pa.array([int(_name(each)[:_KEY_DIGITS], 16) for each in names], pa.uint64())})


def _stage_outputs_with(table: pa.Table, what: str) -> list[str]:
    low, high = (pa.scalar(bound, pa.uint64()) for bound in _span(what))
    hit = pc.and_(pc.greater_equal(table["id"], low), pc.less_equal(table["id"], high))
    return sorted(set(table.filter(hit)["shard"].to_pylist()))


def _images(look: Workspace, shards: Iterable[ImageShard], what: str) -> list[tuple[str, ImageShard]]:
    by_shard = {shard.images.key: shard for shard in shards}
    readers = {
        key: lambda shard=shard: _keys_of(look.store.get(shard.images.key), "image") for key, shard in by_shard.items()
    }
    hits = [
        by_shard[stage_output]
        for stage_output in _stage_outputs_with(lookup(look.store, "images", _IDS, readers), what)
    ]
    return [
        (each.image, shard) for shard in hits for each in look.registry.images(shard) if each.image.startswith(what)
    ]


def _pairs(look: Workspace, shards: Mapping[str, ImageShard], what: str) -> list[tuple[Pair, ImageShard]]:
    """Pairs of committed outputs of write, also under former settings, each once."""
    stage_outputs = {
        stage_output.marker: stage_output
        for shard in shards
        for (stage, _), stage_output in look.stage_outputs.committed(shard).items()
        if stage == "write"
    }
    readers = {
        name: lambda stage_output=stage_output: _keys_of(_raw(look, stage_output, "pairs"), "pair")
        for name, stage_output in stage_outputs.items()
    }
    hits = [stage_outputs[name] for name in _stage_outputs_with(lookup(look.store, "pairs", _IDS, readers), what)]
    found = {
        pair.pair: (pair, shards[stage_output.shard])
        for stage_output in hits
        for pair in look.stage_outputs.load(stage_output, "pairs", Pair)
        if pair.pair.startswith(what)
    }
    return list(found.values())


def _corrected_by(look: Workspace, what: str) -> str | None:
    """The id of the written pair that a person's answer, the pair with this id, corrects; None: there is none."""
    reviews = ReviewLog(look.store).read()
    made = [pair for pair in reviews.corrections if pair.startswith(what)] if reviews else []
    return reviews.written(made[0]) if reviews and len(made) == 1 else None


def _raw(look: Workspace, stage_output: StageOutput, name: str) -> bytes:
    return look.store.get(look.stage_outputs.refs(stage_output)[name].key)


def _files(
    look: Workspace, shards: Iterable[ImageShard], what: str
) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """The images that a live source claims with this file name, or else the rejects of this name."""
    parts = {part.key: part.table for part in look.registry.claim_parts()}
    readers = {key: lambda key=key: _names_of(look.store.get(key)) for key in parts}
    hits = _stage_outputs_with(lookup(look.store, "files", _IDS, readers), _name(what))
    claims = [claim for key in hits for claim in look.stage_outputs.read(parts[key], Claim)]
    denied = look.registry.denied()
    named = {claim.image for claim in claims if claim.file == what and claim.image not in denied}
    rejected: list[FileReject] = []
    if not named:
        rejected = [reject for reject in look.registry.rejects() if reject.file == what]
        return [("file", what, lambda: {"rejected": [asdict(each) for each in rejected]})] if rejected else []
    return [
        ("image", image, lambda shard=shard, image=image: _image(look, shard, image))  # type: ignore[misc]
        for name in sorted(named)
        for image, shard in _images(look, shards, name)
    ]


def _task_types(look: Workspace, what: str) -> list[str]:
    """Paths that equal ``what`` or end with its levels, in the newest version that has one."""
    for nodes in reversed(node_tables(look, ["path"])):
        ends = pc.or_(pc.equal(nodes["path"], what), pc.ends_with(nodes["path"], f"~{what}"))
        if found := nodes.filter(ends)["path"].to_pylist():
            return [what] if what in found else sorted(found)
    return []


# --- an image, or one pair of it


def _image(look: Workspace, shard: ImageShard, image: str, only: Pair | None = None) -> dict[str, Any]:
    there = store_state(look, [shard], unclaimed=True)
    (one,) = there.shards
    matches, computed = matched(look, there, there.shards)
    if shard.id not in matches:
        raise NotFoundError(f"image {image}: it has no embedding yet, so no matches. Run `taskgalaxy generate`.")
    (result,) = generation_run.look_through(look, matches, there.by_shard, computed, there.targets).shards
    if (rows := computed.get(shard.id)) is None:
        rows = look.stage_outputs.load(matches[shard.id], "matches", Match)
    begun = there.begun.get(shard.id)
    story = _Story(look, one, result, image, [match for match in rows if match.image == image], begun)
    if there.targets is not None:
        story.tried = {match.task_type for match in there.targets.rows(shard.id) if match.image == image}
    (seen,) = [each for each in look.registry.images(shard) if each.image == image]
    found: dict[str, Any] = {
        "image": asdict(seen),
        "claims": [
            {**asdict(claim), "context": json.loads(claim.context) if claim.context else None}
            for claim in look.registry.claims_of(shard.id)
            if claim.image == image
        ],
        "matches": story.matches(only),
        **({"with_others": others} if (others := story.with_others(image)) else {}),
    }
    if only is not None and not any(pair["pair"] == only.pair for each in found["matches"] for pair in each["pairs"]):
        found["former"] = {**asdict(only), "changed": story.changed()}
    shown: dict[str, Any] = _with_present_paths(found, TaxonomyStore(look).version())
    return shown


def _with_present_paths(found: Any, version: TaxonomyVersion) -> Any:
    """What was found, each task type by the path that it has now."""
    if isinstance(found, list):
        return [_with_present_paths(each, version) for each in found]
    if isinstance(found, dict):
        return {
            name: version.shown(value) if name == "task_type" else _with_present_paths(value, version)
            for name, value in found.items()
        }
    return found


class _Story:
    """What the stages made of one image, and the replies that decided it."""

    def __init__(
        self,
        look: Workspace,
        one: ShardState,
        result: ShardResult,
        image: str,
        matches: Sequence[Match],
        begun: Mapping[str, Sequence[str]] | None,
    ) -> None:
        self._look, self._one, self._result, self._matches = look, one, result, matches
        templates = StageKeys(look).templates_for(one.shard.id)
        self._filter, self._write = templates["filter"]["filter"], templates["write"]
        self._judges = judges_of(templates["vote"])
        self._rule = rule_by(staged(look).vote, self._judges)
        self._journal = Journal(look.store, one.shard.id, begun)
        self._replies = {reply["reply"]: reply for reply in self._journal.replies()}
        self._released = {each.name: ReleaseRows(look.store, each.version) for each in published(look)}
        self._reviews = ReviewLog(look.store).read()
        self.tried: set[str] | None = None  # the task types that targets take of the image; None: all
        self._rows = {  # votes and verdicts name no image
            (stage, name): [row for row in self._of(stage, name) if getattr(row, "image", image) == image]
            for stage in ASKING
            for name in STAGE[stage].tables
        }

    def _of(self, stage: str, name: str) -> list[Any]:
        made = self._result.stages[stage]
        record = STAGE[stage].tables[name]
        return self._look.stage_outputs.load(made.stage_output, name, record) if made.stage_output else made.rows[name]

    def with_others(self, image: str) -> list[dict[str, Any]]:
        """The pairs about several images of which this is not the first."""
        pairs = self._of("write", "pairs")
        return [asdict(pair) for pair in pairs if image in pair.images[1:]]

    def matches(self, only: Pair | None) -> list[dict[str, Any]]:
        """Each match in order of rank: what became of it, or why it was rejected."""
        chosen = [match for match in self._matches if only is None or match.task_type == only.task_type]
        return [self._match(match, only) for match in sorted(chosen, key=lambda match: match.rank)]

    def _match(self, match: Match, only: Pair | None) -> dict[str, Any]:
        tried = self.tried is None or match.task_type in self.tried
        fits = [row for row in self._rows["filter", "relevant"] if row.task_type == match.task_type]
        asked = self._filter.unit(match.image, {"task_type": match.task_type})
        pairs = [pair for pair in self._rows["write", "pairs"] if pair.task_type == match.task_type]
        told = {pair.pair for pair in pairs}  # what the vote rejected is told with its pair
        rejects = [
            row
            for stage in ASKING
            for row in self._rows[stage, "rejects"]
            if row.task_type == match.task_type and row.pair not in told
            if only is None or row.pair in {None, only.pair}
        ]
        first = first_answers(self._write)
        written = {variant: question.unit(match.image, asked.item) for variant, question in first.items()}
        written = {variant: unit for variant, unit in written.items() if first[variant].groups is None or unit.further}
        return {
            "task_type": match.task_type,
            "rank": match.rank,
            "similarity": match.similarity,
            "fits": fits[0].reason if fits else None,
            "filtered_by": self._by(self._filter, asked),
            "rejected": [
                {
                    **asdict(row),
                    "by": self._by(self._write[row.variant], written[row.variant])
                    if row.stage == "write" and row.variant in written and row.number is None
                    else None,
                }
                for row in rejects
            ],
            "waits_for": self._waits(fits, rejects, written, pairs) if tried else [],
            **({} if tried else {"not_tried": True}),
            "pairs": [self._pair(pair) for pair in pairs if only is None or pair.pair == only.pair],
        }

    def _waits(
        self,
        fits: Sequence[Relevant],
        rejects: Sequence[Any],
        written: Mapping[str, RequestItem],
        pairs: Sequence[Pair],
    ) -> list[str]:
        """The stages that have no answer on this match yet."""
        if not fits:
            return [] if rejects else ["filter"]
        answers, first = self._journal.answers, [pair for pair in pairs if pair.number is None]
        further = {name: answer_units(template, first) for name, template in further_answers(self._write).items()}
        wanted = {**{variant: [unit] for variant, unit in written.items()}, **further}
        return [f"write ({name})" for name, units in wanted.items() if lacking(units, answers)]

    def _pair(self, pair: Pair) -> dict[str, Any]:
        verdict = next((each for each in self._rows["vote", "verdicts"] if each.pair == pair.pair), None)
        votes = {vote.judge: vote for vote in self._rows["vote", "votes"] if vote.pair == pair.pair}
        reason = next((row.reason for row in self._rows["vote", "rejects"] if row.pair == pair.pair), None)
        told: dict[str, Any] = {
            **asdict(pair),
            "accepted": verdict.accepted if verdict else False if reason else None,  # None: votes are pending
            "reason": reason,
            "written_by": self._by(*asked_for(self._write, pair)),
            "votes": [
                {**asdict(votes[question.model.name]), "by": self._by(question, vote_unit(question, pair))}
                for question in self._judges
                if question.model.name in votes
            ],
        }
        counted = [vote for judge in self._rule.judges if (vote := votes.get(judge)) and not vote.audit]
        if verdict and (decided := self._rule.told(tuple(vote.vote for vote in counted))):
            told["decided_by"] = decided
        if verdict and verdict.blind is not None:
            told["blind"] = verdict.blind
        if verdict and verdict.accepted:
            told["releases"] = [name for name, rows in self._released.items() if rows.holds(pair.pair)]
            told["not_released"] = self._not_released(pair, told["releases"])
        return told | self._people(pair.pair)

    def _people(self, pair: str, above: frozenset[str] = frozenset()) -> dict[str, Any]:
        """What people say of a pair and of its corrections, and whether they veto it; {}: nobody says anything.

        above: the pairs that it corrects, in whose words a later correction may end again.
        """
        if self._reviews is None or pair in above or pair not in self._reviews.by_pair:
            return {}
        people = []
        for review in self._reviews.by_pair[pair]:
            becomes = review.becomes or ""
            told = {name: value for name, value in asdict(review).items() if name not in _NAMED}
            told["at"] = datetime.fromtimestamp(review.at, UTC).isoformat(timespec="seconds")
            told["releases"] = [name for name, rows in self._released.items() if rows.holds(becomes)]
            if becomes and self._look.judged_reviews is not None:
                told["accepted"] = next((v.accepted for v in self._rows["vote", "verdicts"] if v.pair == becomes), None)
            people.append(told | self._people(becomes, above | {pair}))
        vetoed = self._look.settings.review.rule == "veto" and self._reviews.found_wrong(pair)
        return {"people": people, "vetoed": vetoed}

    def _not_released(self, pair: Pair, released: Sequence[str]) -> str | None:
        """Why the latest release does not contain a sample; None if it does, or there is no release."""
        if not self._released or (latest := list(self._released)[-1]) in released:
            return None
        for reject in _left_out(self._look):
            if reject.pair == pair.pair:
                return f"{reject.reason} ({reject.detail})"
        return f"accepted since {latest}: the next release takes it in"

    def _by(self, question: RequestTemplate, unit: RequestItem) -> dict[str, Any] | None:
        """The model, prompt, time and cost of a unit's current answer; None: it has no answer."""
        reply = self._replies.get(self._journal.sources.get(unit.key, ""))
        if reply is None:
            return None
        call = reply["note"].get("asked_along")
        if call in self._replies:  # the request that asked for it, too
            reply = self._replies[call]
        return {
            **({"asked_along_with": reply["stage"]} if call else {}),
            "model": question.model.name,
            "revision": question.model.revision,
            "served_by": reply["raw"].get("model"),
            "prompt": prompt_name(question),
            "prompt_hash": fingerprint("prompt", question.prompt),
            "request": reply["raw"].get("id"),  # the provider's own
            "reply": reply["reply"],
            "at": datetime.fromtimestamp(reply["at"], UTC).isoformat(timespec="seconds"),
            "seconds": reply["seconds"],
            "attempts": reply["attempts"],
            "units": len(reply["units"]),  # that shared the request
            "tokens": pricing.tokens(reply["usage"]),
            "cost": reply["cost"] / NANO,
            "simulated": reply["simulated"],
        }

    def changed(self) -> list[str]:
        """What differs between the wanted output of write and the nearest one under former settings."""
        told = marker_summaries(
            self._look.store,
            (stage_output for stage_output in self._one.committed.values() if stage_output.stage in NAMES),
        )
        wanted = self._result.stages["write"].key
        former = (
            differences(wanted.made_of, told[stage_output].made_of)
            for stage_output in self._one.former("write")
            if stage_output in told and stage_output.key != wanted.key
        )
        return min((found for found in former if found), key=len, default=[])


def _left_out(look: Workspace) -> Sequence[Reject]:
    """The pairs that the latest release left out; if they were not kept, they are found by selecting again."""
    version = published(look)[-1].version
    if (known := left_out(look.store, version)) is None:
        with release.select_samples(publish.release_inputs(RunResults(look)), look.settings.release) as plan:
            known = list(plan.rejects())
        keep_left_out(look.store, version, known)
    return known
