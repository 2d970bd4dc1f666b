"""Expand: the teacher proposes new children at each level of the taxonomy (paper, section 3.1).

Proposals are untrusted text. The proposals of a round are admitted when all its requests are answered, in the order of
paths and not of replies; the new version is therefore a function of the base version and the answers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.errors import PendingError
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models.request import MalformedReplyError, RequestItem, RequestTemplate
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Answer, LabelReject, Node, TaskTypePath
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import Expansion, admit, children, expansions, label_text, live_leaves
from taskgalaxy_ops.taxonomy.growth import without_refused
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace

_LONGEST_LIST = 1000


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

    rounds: int = 1  # at most; growing also ends when nothing new comes
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
    progress = progress or Silent()
    workspace.publish_settings()
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.ensure_seeds()
    base = taxonomy_store.version()
    template = expand_template(workspace.prompts["expand"], workspace.settings.teacher)
    nodes, refused = list(base.nodes), taxonomy_store.refused()
    result = ExpandResult(base.number, usage=usage or Usage())
    deadline = batch_wait.deadline(workspace.settings.run.batch) if wait else 0.0
    for number in range(1, growth.rounds + 1):
        left = None if growth.max_new is None else growth.max_new - len(result.added)
        wide_enough = growth.up_to is not None and len(live_leaves(nodes)) >= growth.up_to
        if (left is not None and left <= 0) or wide_enough:
            break
        wanted = expansions(nodes, number, refused)
        if growth.below is not None:
            wanted = _first(wanted, growth.below, workspace.settings.taxonomy.children, left)
        units = [template.unit(None, _item(one, workspace.settings.taxonomy.children)) for one in wanted]
        answers = asyncio.run(_answers(workspace, template, units, progress, result.usage, deadline))
        proposals, kept_out = without_refused(
            (
                (one, label)
                for one, unit in zip(wanted, units, strict=True)
                for label in children(one, answers[unit.key].value or {})
            ),
            refused,
        )
        added, rejects = admit(
            proposals,
            nodes,
            lambda paths: workspace.checked_encoder().encode_texts([label_text(path) for path in paths]),
            workspace.settings.taxonomy.near_duplicate,
            left,
        )
        result.added += added
        result.rejects += kept_out + rejects
        nodes += added
        if not added:
            break
    if result.added and publish:
        result.version = taxonomy_store.publish(base.number, nodes, result.rejects, "expand")
    elif result.added:
        result.proposal = taxonomy_store.propose(base.number, nodes, result.rejects)
    return result


def _first(
    wanted: Sequence[Expansion], below: Mapping[TaskTypePath, float], children_each: int, max_new: int | None
) -> list[Expansion]:
    """The requests for the most crowded nodes: twice as many as ``max_new`` needs if every reply is full."""
    ranked = sorted((one for one in wanted if one.path in below), key=lambda one: (-below[one.path], one.path))
    return ranked if max_new is None else ranked[: 2 * math.ceil(max_new / children_each)]


def _item(expansion: Expansion, count: int) -> dict[str, Any]:
    return {
        "kind": expansion.kind,
        "path": expansion.path,
        "existing": list(expansion.existing),
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
