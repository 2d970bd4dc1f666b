"""A proposed taxonomy version, for the person who decides on it: as a page and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.operations.proposal_outlook import ProposalOutlook, TypeOutlook
from taskgalaxy_ops.records import ImageId, LabelReject, Node, TaskTypePath
from taskgalaxy_ops.release import markdown
from taskgalaxy_ops.reports.html import Cell, Pictures, table_page
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.taxonomy.store import Proposal
from taskgalaxy_ops.text import dollars

_BRANCHES = 3  # shown to the person who decides: with more, the buttons below would be out of view
_NAMES = 100  # characters of a branch's new nodes there
_PICTURES = 12  # there
_PICTURED = 300  # task types with pictures on the page, those with the most images: more would make it slow
_SIBLINGS = 8
_NO_TYPE = TypeOutlook(images=0)

Thumbnail = Callable[[ImageId], bytes]  # JPEG; raises NotFoundError


def proposal_page(
    found: Proposal, outlook: ProposalOutlook, thumbnail: Thumbnail, *, simulated: bool, why: Sequence[str] = ()
) -> str:
    """All new nodes, with what they would be asked about and what is near, and all rejects by reason (HTML).

    why: sentences on what these were grown by.
    """
    lead = [f"{len(found.added):,} new nodes on top of version {found.base}, by branch.", *outlook_lines(outlook), *why]
    if simulated:
        lead.append("SIMULATED: the teacher that proposed them is a simulated model.")
    tables = [
        (branch, _HEADER, [_new(node, outlook, pictures, thumbnail) for node in nodes])
        for pictures in [_pictured(outlook)]
        for branch, nodes in _branches(found.added).items()
    ]
    rejects: dict[str, list[LabelReject]] = {}
    for each in found.rejects:
        rejects.setdefault(each.reason, []).append(each)
    folded = [
        (f"Left out: {reason}", ("proposed", "neighbour or detail", "similarity"), [_rejected(each) for each in those])
        for reason, those in sorted(rejects.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]
    return table_page(f"Proposal {found.number}: new task types", lead, tables, folded=folded)


def outlook_lines(outlook: ProposalOutlook) -> list[str]:
    """What the proposal would ask about, in sentences."""
    if not outlook.images:
        return ["No registered image has an embedding yet: how many images they match is not known."]
    about = "" if outlook.matched == outlook.images else "about "
    questions = f"{outlook.pairs:,} new question{'' if outlook.pairs == 1 else 's'}"
    said = f"Publishing them would ask the filter {about}{questions} on {outlook.images:,} images"
    lines = [said + _cost(outlook, outlook.pairs) + "."]
    if about:
        lines.append(f"Estimated from {outlook.matched:,} of these images.")
    if outlook.unmatched:
        lines.append(f"{outlook.unmatched:,} more images have no embedding yet, and are not counted.")
    return lines + [f"{line[0].upper()}{line[1:]}." for line in plan_text.outlook(outlook.release)]


def proposal_markdown(
    found: Proposal, outlook: ProposalOutlook, page: str = "", image: str = "", why: Sequence[str] = ()
) -> str:
    """A proposed version in short, for the person who decides: what is new, by branch, and what was left out, and why.

    It is short, so that the buttons below it are in view. page: the address of the page that has everything. image: the
    address below which pictures of images lie, by id; "": no picture is shown. why: as on the page.
    """
    branches = _branches(found.added)
    lines = [f"**{len(found.added):,} new nodes** on top of version {found.base}, in {len(branches):,} branches. "]
    lines[0] += " ".join(outlook_lines(outlook))
    lines[0] += f" [Each with its pictures, what is near it, and what was left out]({page})" if page else ""
    lines += ["", *map(markdown.text, why)] if why else []
    images = {branch: sum(_of(node, outlook).images for node in nodes) for branch, nodes in branches.items()}
    largest = sorted(branches, key=lambda branch: (-images[branch], branch))[:_BRANCHES]
    rows = [_branch(branch, branches[branch], images[branch]) for branch in largest]
    lines += ["", *markdown.table(("branch", "new", "images", "new nodes"), rows)]
    if rest := sorted(branches.keys() - set(largest)):
        lines += [f"… and {len(rest):,} more branches: {markdown.text(', '.join(rest), _NAMES)}", ""]
    pictures = dict.fromkeys(each for node in found.added for each in _of(node, outlook).pictures[:1])
    if image and pictures:
        shown = [f"![]({image}/{each})" for each in list(pictures)[:_PICTURES]]
        lines += markdown.table(("would be asked about", *shown), [])  # side by side: Airflow breaks lines at pictures
    reasons = Counter(reject.reason for reject in found.rejects)
    counted = "; ".join(f"{number:,} {markdown.text(reason)}" for reason, number in reasons.most_common())
    return "\n".join([*lines, f"**Left out**: {counted or 'nothing'}."])


def _branches(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """The nodes by first-level branch, in the order of paths."""
    branches: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.path):
        branches.setdefault(node.path.partition("~")[0], []).append(node)
    return branches


_HEADER = ("new node", "images", "would cost", "nearest images", "nearest existing task types", "beside it")


def _new(node: Node, outlook: ProposalOutlook, pictured: set[TaskTypePath], thumbnail: Thumbnail) -> tuple[Cell, ...]:
    name = _shown(node.path)
    if (found := outlook.types.get(node.path)) is None:
        return name, "", "", "a group of task types", "", ""
    jpegs = []
    for each in found.pictures if node.path in pictured else ():
        try:
            jpegs.append(thumbnail(each))
        except NotFoundError:  # taken down meanwhile
            continue
    nearest = "; ".join(f"{_shown(path)} ({similarity:.2f})" for path, similarity in found.nearest)
    beside = ", ".join(path.rpartition("~")[2] for path in found.siblings[:_SIBLINGS])
    if len(found.siblings) > _SIBLINGS:
        beside += f", and {len(found.siblings) - _SIBLINGS} more"
    cost = _cost(outlook, found.images).removeprefix(", for ")
    return name, f"{found.images:,}", cost, Pictures(jpegs), nearest, beside


def _pictured(outlook: ProposalOutlook) -> set[TaskTypePath]:
    ranked = sorted(outlook.types, key=lambda path: (-outlook.types[path].images, path))
    return set(ranked[:_PICTURED])


def _branch(branch: str, nodes: Sequence[Node], images: int) -> tuple[str, ...]:
    below = [node.path.partition("~")[2].replace("~", " › ") or "(the branch itself)" for node in nodes]
    return markdown.text(branch), f"{len(nodes):,}", f"{images:,}", markdown.text("; ".join(below), _NAMES)


def _of(node: Node, outlook: ProposalOutlook) -> TypeOutlook:
    return outlook.types.get(node.path, _NO_TYPE)


def _cost(outlook: ProposalOutlook, pairs: int) -> str:
    """What asking about so many pairs would cost in all stages; "" if nothing is known, or nothing is asked."""
    if outlook.pair_cost is None or not pairs:
        return ""
    cost, listed = outlook.pair_cost * pairs, (outlook.pair_list_cost or 0.0) * pairs
    return f", for {dollars(listed)} at list prices" if listed and not cost else f", for {dollars(cost)}"


def _rejected(reject: LabelReject) -> tuple[str, str, str]:
    similarity = "" if reject.similarity is None else f"{reject.similarity:.2f}"
    return _shown(reject.path), _shown(reject.detail), similarity


def _shown(path: str) -> str:
    return path.replace("~", " › ")
