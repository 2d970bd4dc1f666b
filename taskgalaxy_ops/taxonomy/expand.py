"""Expand: the teacher proposes new children at each level of the taxonomy (paper, section 3.1).

Proposals are untrusted text. The proposals of a round are admitted when all its requests are answered, in the order of
paths and not of replies; the new version is therefore a function of the base version and the answers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taskgalaxy_ops.errors import PendingError
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.models.request import MalformedReplyError, RequestItem, RequestTemplate
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Answer, LabelReject, Node, TaskTypePath
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import Expansion, TaxonomyVersion, admit, children, expansions, label_text, live_leaves
from taskgalaxy_ops.taxonomy.growth import Plan, emptiest, with_cousins, without_refused
from taskgalaxy_ops.taxonomy.labels import parent
from taskgalaxy_ops.taxonomy.rules import load_rules
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace

_LONGEST_LIST = 1000
_ENCODED = 256  # labels encoded between two looks at the progress
_FIRST_GUESS = 0.75  # of the labels asked for, those that become nodes, before there is experience
_OF_COUSINS = (
    "\nOther nodes have `cousins` already: propose none that is among them, or says the same in other words.\n"
)


@dataclass(slots=True)
class ExpandResult:
    """The outcome of an expansion."""

    version: int  # the newest version afterwards
    proposal: int | None = None  # the proposal's number, if the new nodes are not published
    added: list[Node] = field(default_factory=list)
    rejects: list[LabelReject] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)


def expand_template(prompt: str, teacher: Model) -> RequestTemplate:
    """The request for new children of one node."""
    return RequestTemplate(
        stage="expand",
        prompt=prompt,
        model=teacher,
        head={"request": "expand"},
        items=None,
        replies="children",
        schema={"type": "string"},
        read=_read_children,
        canary={"kind": "level1", "path": "", "existing": [], "count": 3, "round": 1},
        about_images=False,
        most="count",
    )


def _read_children(_: Mapping[str, Any], entries: Any) -> Answer:
    if not isinstance(entries, list) or len(entries) > _LONGEST_LIST:
        raise MalformedReplyError("`children` must be a list of strings")
    return Answer({"children": [entry for entry in entries if isinstance(entry, str)]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How far, and where, an expansion may grow the taxonomy."""

    rounds: int | None = 1  # at most; None: no bound. Growing also ends when nothing new comes
    max_new: int | None = None  # the most nodes to add
    up_to: int | None = None  # the number of task types at which growing ends; a taxonomy that has them asks nothing
    # Ask only about these nodes, those with the highest number first, and no more than ``max_new`` needs.
    below: Mapping[TaskTypePath, float] | None = None


_ONE_ROUND = Growth()


def expand(
    workspace: Workspace,
    growth: Growth = _ONE_ROUND,
    *,
    publish: bool = True,
    progress: Progress | None = None,
    wait: bool = True,
    usage: Usage | None = None,
) -> ExpandResult:
    """Grow the newest version.

    publish: if False, the new nodes become a proposal. wait: wait for batches, and for a teacher that serves nothing,
    as long as the settings say. usage: is added to, so that its owner knows of it where this raises.

    Raises PendingError if requests of a round have no answer; the answers that came are kept, and not asked for again.
    """
    workspace.publish_settings()
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.ensure_seeds()
    base = taxonomy_store.version()
    rounds = _Rounds(workspace, growth, base, progress or Silent(), usage or Usage())
    deadline = batch_wait.deadline(workspace.settings.run.batch) if wait else 0.0
    while rounds.go_on(deadline):
        pass
    result = rounds.result
    if result.added:
        # Of a proposal too: its page compares these task types, and a run matches them once they are published.
        taxonomy_store.keep_label_vectors(rounds.vectors.of(leaf.path for leaf in live_leaves(rounds.nodes)))
    if result.added and publish:
        result.version = taxonomy_store.publish(base.number, rounds.nodes, result.rejects, "expand")
    elif result.added:
        result.proposal = taxonomy_store.propose(base.number, rounds.nodes, result.rejects)
    return result


class _Rounds:
    """An expansion round by round. What it has added is a function of the base version and the answers."""

    def __init__(
        self, workspace: Workspace, growth: Growth, base: TaxonomyVersion, progress: Progress, usage: Usage
    ) -> None:
        rules = workspace.settings.taxonomy
        self._workspace, self._growth, self._progress = workspace, growth, progress
        self._plan = Plan(rules.children, rules.widths, rules.novelty)
        self._template = expand_template(
            workspace.prompts["expand"] + (_OF_COUSINS if rules.cousins else ""), workspace.settings.teacher
        )
        self._label_rules, self._refused = load_rules(rules.rules), TaxonomyStore(workspace).refused()
        self._novelty: dict[TaskTypePath, float] = {}  # by node, the share of its last proposals that became nodes
        self._number, self._began = 0, time.monotonic()
        self._new_each = _FIRST_GUESS * self._plan.children  # nodes that a request of the last round brought
        self.nodes = list(base.nodes)
        self.vectors = _LabelVectors(workspace, progress)
        self.result = ExpandResult(base.number, usage=usage)

    def go_on(self, deadline: float) -> bool:
        """Ask and decide one more round; False: growing has ended. deadline: of batches, on the monotonic clock."""
        growth, rules = self._growth, self._workspace.settings.taxonomy
        left = None if growth.max_new is None else growth.max_new - len(self.result.added)
        lacking = None if growth.up_to is None else growth.up_to - len(live_leaves(self.nodes))
        ended = growth.rounds is not None and self._number >= growth.rounds
        if ended or (left is not None and left <= 0) or (lacking is not None and lacking <= 0):
            return False
        self._number += 1
        wanted = still_open = self._plan.wanted(expansions(self.nodes, self._number, self._refused), self._novelty)
        if growth.below is not None:
            wanted = _first(wanted, growth.below, rules.children, left)
        elif lacking is not None:
            wanted = emptiest(wanted, self._requests_for(lacking))
        if not wanted:
            return False
        if rules.cousins:
            wanted = with_cousins(wanted, self.nodes, self.vectors, rules.cousins)
        units = [self._template.unit(None, _item(one, self._plan.count(one))) for one in wanted]
        answers = asyncio.run(
            _answers(self._workspace, self._template, units, self._progress, self.result.usage, deadline)
        )
        proposals = [
            (one, label)
            for one, unit in zip(wanted, units, strict=True)
            for label in children(one, answers[unit.key].value or {})
        ]
        wished, refused = without_refused(proposals, self._refused)
        added, rejects = admit(wished, self.nodes, self.vectors, rules.near_duplicate, left, self._label_rules)
        rejects += refused
        new, said = Counter(parent(node.path) for node in added), Counter(one.path for one, _ in proposals)
        self._novelty |= {one.path: new[one.path] / said[one.path] if said[one.path] else 0.0 for one in wanted}
        self._new_each = len(added) / len(wanted)
        self.nodes += added
        self.result.added += added
        self.result.rejects += rejects
        self._tell(len(wanted), len(proposals), len(added), rejects)
        # Nodes that were not asked may have something new yet; those that had nothing are not asked again.
        return bool(added) or (self._plan.novelty > 0 and len(wanted) < len(still_open))

    def _requests_for(self, lacking: int) -> int:
        """How many requests bring about that many task types, by what those of the last round brought."""
        return math.ceil(lacking / max(1.0, self._new_each - 1))  # a task type that gets children is none any more

    def _tell(self, requests: int, proposals: int, added: int, rejects: Sequence[LabelReject]) -> None:
        why = ", ".join(f"{number:,} {reason}" for reason, number in Counter(r.reason for r in rejects).most_common())
        seconds = max(time.monotonic() - self._began, 1e-9)
        self._progress.note(
            f"round {self._number}: {requests:,} nodes asked, {added:,} of {proposals:,} proposals new"
            + (f" ({why})" if why else "")
            + f"; {len(live_leaves(self.nodes)):,} task types, {len(self.result.added) / seconds:,.1f} nodes a second"
        )


class _LabelVectors:
    """Embeds paths by their labels: those that the store has are read, others are encoded once."""

    def __init__(self, workspace: Workspace, progress: Progress) -> None:
        self._workspace, self._progress = workspace, progress
        self._found: dict[TaskTypePath, Vectors] | None = None

    def __call__(self, paths: Sequence[TaskTypePath]) -> Vectors:
        """(n, d)."""
        encoder = self._workspace.checked_encoder()
        if self._found is None:
            self._found = TaxonomyStore(self._workspace).label_vectors()
        missing = [path for path in paths if path not in self._found]
        if missing:
            self._progress.stage("compare", len(missing), "labels")
        for start in range(0, len(missing), _ENCODED):
            part = missing[start : start + _ENCODED]
            self._found.update(zip(part, encoder.encode_texts([label_text(path) for path in part]), strict=True))
            self._progress.advance("compare", len(part))
        return np.stack([self._found[path] for path in paths])

    def of(self, paths: Iterable[TaskTypePath]) -> dict[TaskTypePath, Vectors]:
        """The vectors (d,) of those of these paths that were embedded."""
        return {path: self._found[path] for path in paths if path in self._found} if self._found else {}


def _first(
    wanted: Sequence[Expansion], below: Mapping[TaskTypePath, float], children_each: int, max_new: int | None
) -> list[Expansion]:
    """The requests for the most crowded nodes: twice as many as ``max_new`` needs if every reply is full."""
    ranked = sorted((one for one in wanted if one.path in below), key=lambda one: (-below[one.path], one.path))
    return ranked if max_new is None else ranked[: 2 * math.ceil(max_new / children_each)]


def _item(expansion: Expansion, count: int) -> dict[str, Any]:
    cousins = {"cousins": list(expansion.cousins)} if expansion.cousins else {}
    return {
        "kind": expansion.kind,
        "path": expansion.path,
        "existing": list(expansion.existing),
        **cousins,
        "count": count,
        "round": expansion.round,
    }


async def _answers(
    workspace: Workspace,
    question: RequestTemplate,
    units: Sequence[RequestItem],
    progress: Progress,
    usage: Usage,
    by: float,
) -> Mapping[str, Answer]:
    """The answers to all units, by key; waits for batches until ``by`` on the monotonic clock. Raises PendingError."""
    shares, batch = Shares(workspace.store, progress.note), workspace.settings.run.batch
    gateway = Gateway(shares, progress.note, usage=usage, patient=by > 0)
    progress.stage("expand", len(units), "nodes")

    async def once(*, first: bool = False) -> InferenceSession:
        async with InferenceSession(
            workspace.store,
            workspace.settings.run,
            gateway,
            workspace.run_budget(),
            AskedShard(id=keys.TAXONOMY_SHARD),
            lambda _, n: progress.advance("expand", n),
        ) as session:
            if first:
                progress.advance("expand", sum(unit.key in session.answers for unit in units))
            await session.ask(lambda answers: [(question, [unit for unit in units if unit.key not in answers])])
        return session

    try:
        session = await once(first=True)
        while not session.held and await batch_wait.until_one_ends(gateway, session.waiting, batch, by):
            session = await once()
    finally:
        await gateway.aclose()
    if pending := sum(unit.key not in session.answers for unit in units):
        waiting = batch_wait.watched(session.waiting, usage)
        why = [session.stopped, *usage.unavailable.values(), *batch_wait.describe(waiting), *usage.gave_up.values()]
        raise PendingError(
            f"taxonomy: {pending} of {len(units)} nodes have no proposals yet "
            f"({next(filter(None, why), 'the teacher gave no reply')}). What was answered is kept: run again to go on.",
            waiting,
            usage.away,
        )
    return session.answers
