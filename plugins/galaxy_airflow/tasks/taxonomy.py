"""Tasks of galaxy_taxonomy: propose new task types, let a person decide, publish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow import metrics
from galaxy_airflow.known import remember
from galaxy_airflow.links import page_of, root
from galaxy_airflow.operators import ASKS
from galaxy_airflow.runtime import opened, progress, ready_settings, receipt
from galaxy_airflow.tasks.common import defer, defer_until_back
from galaxy_airflow.tasks.sources import announce, refuse_announce, run_or_skip
from taskgalaxy_ops.errors import PendingError
from taskgalaxy_ops.generation.coverage import crowded
from taskgalaxy_ops.operations.proposal_outlook import proposal_outlook
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages import proposal as proposal_pages
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy import weaknesses
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import LIVE, struck_out
from taskgalaxy_ops.usage import Usage

_SIDE = 128  # pixels of a picture on the page
_WEAKEST = 3  # branches that it names


def propose(form: Mapping[str, Any], scheduled: bool, ti: Any, away: Mapping[str, float] | None) -> dict[str, Any]:
    """Grow the newest version into a proposal; skipped where nothing new is proposed, or no branch is crowded.

    scheduled: the schedule's rules apply, not the form's. away: models that earlier runs of this try waited for, and
    since when. Raises Waiting while batches are under way, or the teacher serves nothing for now.
    """
    refuse_announce(form)
    began, workspace = time.monotonic(), opened(run=f"{ti.dag_id} {ti.run_id}")
    rules, below, most = workspace.settings.taxonomy, None, form["max_new"]
    if scheduled:
        most = rules.scheduled_new
    if scheduled or form["where_images_crowd"]:
        below = crowded(workspace, rules.scheduled_images_a_type)
        if not below:
            raise AirflowSkipException(
                f"no node has {rules.scheduled_images_a_type:g} fitting images a task type: the taxonomy is wide enough"
            )
    why: list[str] = []
    if below and (weak := weaknesses.in_force(workspace)):
        below = {path: images * weak.weight(path) for path, images in below.items()}
        why = [f"Grown first where {weak.model} is weak: {line}." for line in run_text.weak_branches(weak, _WEAKEST)]
    usage, rejects = Usage(), Counter[str]()
    try:
        with progress() as shown:
            growth = Growth(rounds=form["rounds"], max_new=most, up_to=form.get("up_to"), below=below)
            result = expand(workspace, growth, publish=False, progress=shown, wait=False, usage=usage)
        rejects.update(reject.reason for reject in result.rejects)
    except PendingError as error:
        away_why = {name: str(error) for name in error.away}
        defer_until_back(error.away, away_why, workspace.settings, away)
        defer(error.waiting, workspace.settings, ti.start_date)
        raise
    finally:
        told = {"usage": usage, "seconds": time.monotonic() - began, "rejects": rejects}
        model = workspace.settings.teacher.name
        metrics.tell(lambda: [metrics.Work(dag=ti.dag_id, stage="expand", model=model, **told)])
    if result.proposal is None:
        raise AirflowSkipException(f"nothing new was proposed ({len(result.rejects)} proposals rejected)")
    proposal = TaxonomyStore(workspace).proposal(result.proposal)
    outlook = proposal_outlook(workspace, proposal)
    page = f"proposal-{result.proposal}"
    shown_page = proposal_pages.proposal_page(
        proposal,
        outlook,
        lambda image: thumbnail(read_image(workspace, image), _SIDE),
        simulated=workspace.settings.simulated,
        why=why,
    )
    workspace.store.replace(keys.report(page), shown_page.encode())
    asked = proposal_pages.proposal_markdown(proposal, outlook, page_of({"page": page}), f"{root()}/images", why)
    ti.xcom_push(ASKS, asked)
    return receipt(
        "proposed",
        began,
        proposal=result.proposal,
        base=proposal.base,
        added=len(proposal.added),
        rejects=len(proposal.rejects),
        would_ask=outlook.pairs,
        calls=result.usage.calls,
        tokens=result.usage.tokens,
        cost=result.usage.cost / NANO,
        page=page,
    )


def needs_person(proposed: Mapping[str, Any]) -> bool:
    """Whether the settings ask for a person's approval of this proposal."""
    rules = ready_settings().taxonomy
    if rules.approval == "by_rule":
        return bool(proposed["added"] > rules.approve_up_to)
    return rules.approval == "required"


def new_nodes(number: int) -> list[str]:
    """The paths of a proposal's new nodes."""
    return [node.path for node in TaxonomyStore(opened()).proposal(number).added]


def refuse_proposal(number: int) -> int:
    """Remember a proposal's new nodes as refused. Returns how many they are."""
    taxonomy_store = TaxonomyStore(opened())
    added = taxonomy_store.proposal(number).added
    taxonomy_store.refuse(number, [node.path for node in added])
    return len(added)


def publish_proposal(proposed: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Publish a proposal as the newest version.

    answer: what a person answered, with the paths that were struck out; None: nobody was asked.
    """
    began, workspace = time.monotonic(), opened()
    taxonomy_store = TaxonomyStore(workspace)
    proposal = taxonomy_store.proposal(proposed["proposal"])
    struck = ((answer or {}).get("params_input") or {}).get("strike_out") or []
    nodes = struck_out(proposal.nodes, proposal.added, struck)
    taxonomy_store.refuse(proposal.number, struck)  # also those that are left out of the version
    version = taxonomy_store.publish(proposal.base, nodes, proposal.rejects, "expand")
    remember(workspace)
    leaves = len(taxonomy_store.version(version).leaves())
    live = {node.path for node in nodes if node.status == LIVE}
    added = sum(node.path in live for node in proposal.added)
    return receipt(
        "published", began, version=version, added=added, struck_out=len(proposal.added) - added, task_types=leaves
    )


def announce_published(outlet: Any, form: Mapping[str, Any], ti: Any) -> dict[str, Any]:
    """Announce every registered source for the new version, if the form chose to run them, or a person approved it."""
    run_or_skip(form, ti)
    return announce(outlet, None, "taxonomy")
