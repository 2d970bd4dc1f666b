"""A proposed taxonomy version, for the person who decides on it: as a page and as Markdown."""

from __future__ import annotations

from collections import Counter

from taskgalaxy_ops.records import LabelReject
from taskgalaxy_ops.release import markdown
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.taxonomy.store import Proposal

_DECIDED_UPON = 200  # new nodes listed in the Markdown that is shown to the person who decides
_NEIGHBOURS = 30  # rejected proposals listed there


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
    """A proposed version in short: counts by branch, new nodes, rejected proposals nearest to their neighbours."""
    branches = Counter(node.path.split("~")[0] for node in found.added)
    lines = [f"**{len(found.added):,} new nodes** on top of version {found.base}.", ""]
    lines += markdown.table(("branch", "new"), [(markdown.text(b), str(n)) for b, n in sorted(branches.items())])
    shown = found.added[:_DECIDED_UPON]
    lines += markdown.table(("new node", "level"), [(markdown.text(n.path), str(n.level)) for n in shown])
    if len(found.added) > len(shown):
        lines += [f"… and {len(found.added) - len(shown):,} more: see the page linked from the task `propose`.", ""]
    near = [reject for reject in found.rejects if reject.similarity is not None]
    near.sort(key=lambda reject: (-(reject.similarity or 0), reject.path))
    lines += [f"**{len(found.rejects):,} proposals rejected**, {len(near):,} of them as twins of a neighbour:", ""]
    lines += markdown.table(
        ("proposed", "reason", "neighbour", "similarity"),
        [tuple(map(markdown.text, _rejected(reject))) for reject in near[:_NEIGHBOURS]],
    )
    return "\n".join(lines)


def _rejected(reject: LabelReject) -> tuple[str, str, str, str]:
    similarity = "" if reject.similarity is None else f"{reject.similarity:.2f}"
    return reject.path.replace("~", " › "), reject.reason, reject.detail.replace("~", " › "), similarity
