"""A proposed taxonomy version, for the person who decides on it: as a page and as Markdown."""

from __future__ import annotations

from collections import Counter

from taskgalaxy_ops.records import LabelReject
from taskgalaxy_ops.release import markdown
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.taxonomy.store import Proposal

_BRANCHES = 40  # shown to the person who decides
_NAMES = 300  # characters of a branch's new nodes there


def proposal_page(found: Proposal, simulated: bool) -> str:
    """All new nodes and all rejects of a proposed version (HTML)."""
    lead = [f"Proposal {found.number}: {len(found.added):,} new nodes on top of version {found.base}."]
    if simulated:
        lead.append("SIMULATED: the teacher that proposed them is a simulated model.")
    added = [(node.path.replace("~", " › "), str(node.level)) for node in found.added]
    return table_page(
        "Proposed task types",
        lead,
        [
            ("New nodes, by path", ("path", "level"), added),
            ("Rejected", ("proposed", "reason", "neighbour", "similarity"), [_rejected(r) for r in found.rejects]),
        ],
    )


def proposal_markdown(found: Proposal) -> str:
    """A proposed version in short, for the person who decides: what is new, by branch, and what was left out, and why.

    It is short, so that the buttons below it are in view; the page that ``propose`` links has everything.
    """
    branches: dict[str, list[str]] = {}
    for node in found.added:
        branch, _, below = node.path.partition("~")
        branches.setdefault(branch, []).append(below.replace("~", " › ") or "(the branch itself)")
    lines = [f"**{len(found.added):,} new nodes** on top of version {found.base}, in {len(branches):,} branches.", ""]
    rows = [
        (markdown.text(branch), str(len(names)), markdown.text("; ".join(names), _NAMES))
        for branch, names in sorted(branches.items())
    ]
    lines += markdown.table(("branch", "new", "nodes"), rows[:_BRANCHES])
    if len(rows) > _BRANCHES:
        lines += [f"… and {len(rows) - _BRANCHES:,} more branches: see the page of the task `propose`.", ""]
    reasons = Counter(reject.reason for reject in found.rejects)
    counted = "; ".join(f"{number:,} {markdown.text(reason)}" for reason, number in reasons.most_common())
    lines += [f"**Left out**: {counted or 'nothing'}."]
    near = [reject for reject in found.rejects if reject.similarity is not None]
    if near:
        closest = max(near, key=lambda reject: (reject.similarity or 0, reject.path))
        lines[-1] += " The closest twins: " + " and ".join(
            markdown.text(text.replace("~", " › "), _NAMES) for text in (closest.path, closest.detail)
        )
    return "\n".join(lines)


def _rejected(reject: LabelReject) -> tuple[str, str, str, str]:
    similarity = "" if reject.similarity is None else f"{reject.similarity:.2f}"
    return reject.path.replace("~", " › "), reject.reason, reject.detail.replace("~", " › "), similarity
