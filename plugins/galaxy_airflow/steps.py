"""What the DAGs' tasks do: a library call each, with its receipt. Imported when a task runs, not when DAGs parse."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from galaxy_airflow.operators import WaitingOperator
from galaxy_airflow.runtime import log, opened, progress, ready_settings, receipt
from galaxy_airflow.triggers import BatchEnd
from taskgalaxy_ops import (
    announcements,
    awaiting,
    doctor,
    finetuning,
    look_views,
    money_views,
    pipeline,
    planning,
    publishing,
    reporting,
    scoring,
    takedown,
    upkeep,
    views,
    watching,
)
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.errors import LeaseLostError, PendingError, SettingsError, SourceError, UnansweredError
from taskgalaxy_ops.expansion import crowded, expand
from taskgalaxy_ops.finetune.backends import open_backend
from taskgalaxy_ops.finetune.jobs import TrainBackend
from taskgalaxy_ops.forecasting import forecast, probe, record
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.report import render
from taskgalaxy_ops.settings import ReleaseSettings, Settings, SourceSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.budget import NANO
from taskgalaxy_ops.verify import verify

_SHOWN = 20
# A worker tells within six seconds or so that a task's process has ended (workers.min_heartbeat_interval). One that is
# deferred and goes on before that counts for Airflow 3.3 as killed.
_LEAST_POLL_SECONDS = 10.0


def several(results: Any) -> list[Mapping[str, Any]]:
    """The results of mapped tasks that have one, as a list. Of a mapped group of one, Airflow gives it bare."""
    if results is None:
        return []
    return [results] if isinstance(results, Mapping) else [each for each in results if each is not None]


# --- sources


def register(source: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Register a source's images; ``form``: where it lies, if the trigger form says so."""
    began, galaxy = time.monotonic(), opened()
    chosen = None
    if form and form.get("location"):
        given = {name: form[name] for name in SourceSettings.model_fields if form.get(name)}
        chosen = SourceSettings(**given)
    with progress() as shown:
        found = pipeline.ingest(galaxy, source, chosen=chosen, progress=shown)
    for line in views.ingested([found]):
        log.info(line)
    return receipt(
        f"ingested {source}",
        began,
        source=source,
        files=found.files,
        images=found.images,
        new_images=found.new_images,
        new_shards=found.new_shards,
        rejects=len(found.rejects),
    )


def look(ti: Any) -> list[str]:
    """The sources that are new or have changed; leaves why others cannot be looked at under the XCom key ``failed``."""
    began, galaxy = time.monotonic(), opened()
    found = watching.watch(galaxy)
    for name, why in found.failed.items():
        log.error("%s cannot be looked at: %s", name, why)
    receipt("watch", began, changed=sorted(found.changed), same=len(found.same), failed=sorted(found.failed))
    ti.xcom_push("failed", found.failed)
    return sorted(found.changed)


def register_watched(source: str) -> dict[str, Any]:
    """Register what a watch found changed."""
    return register(source, watching.located(opened())[0][source].model_dump())


def still_failing(
    registered: Sequence[Mapping[str, Any]], changed: Sequence[str] | None, unseen: Mapping[str, str] | None
) -> None:
    """Red, and names the sources that a watch could not look at (``unseen``) or register; None: it never looked."""
    if changed is None:
        raise AirflowFailException("watch: the task `look` failed, and its log says why")
    done = {each["source"] for each in registered}
    failed = {**(unseen or {}), **{name: "see its task" for name in changed if name not in done}}
    if failed:
        raise AirflowFailException("watch: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))


def announce_registered(
    outlet: Any, registered: Sequence[Mapping[str, Any]], reason: str, wanted: bool
) -> dict[str, Any]:
    """Announce what was registered; skipped where the form asks for registering alone."""
    if not wanted:
        raise AirflowSkipException("only registered: galaxy_backfill says what it would cost, and runs it")
    return announce(outlet, [each["source"] for each in registered], reason)


def announce(outlet: Any, sources: Sequence[str] | None, reason: str, **orders: Any) -> dict[str, Any]:
    """Announce sources together (None: all registered ones), to the store and to Airflow. Skipped if there is none."""
    began, galaxy = time.monotonic(), opened()
    names = sorted(galaxy.registry.scans()) if sources is None else sorted(set(sources))
    number = announcements.announce(galaxy, names, reason, **orders)
    if number is None:
        raise AirflowSkipException("nothing to announce: nothing runs downstream")
    outlet.add_partitions(names)
    return receipt("announced", began, announcement=number, sources=names)


# --- generate


def lanes(source: str) -> list[dict[str, Any]]:
    """The lanes of a run; each carries what its tasks need: numbers and names."""
    began, galaxy = time.monotonic(), opened()
    upto = announcements.seen(galaxy)
    orders = announcements.orders(galaxy, source)
    galaxy = opened(**orders)
    Catalogue(galaxy).embeddings()  # once, before lanes that would each encode what is new
    found = pipeline.lanes(galaxy, [source], galaxy.settings.airflow.lanes)
    receipt(f"generate {source}", began, lanes=len(found), announcement=upto, orders=orders)
    return [{**lane.plain(), "orders": orders, "upto": upto, "run": galaxy.run} for lane in found]


def stage(name: str, lane: Mapping[str, Any], last_try: bool, since: datetime) -> dict[str, Any]:
    """One stage of a lane, as far as models and budget allow. What has no answer is pending, and counted.

    since: when this try began, before it was deferred. Raises LeaseLostError while another run asks for one of its
    homes, and UnansweredError where a model gave no reply for now and there is a try left: trying later may help both.
    Raises TaskDeferred while batches are under way.
    """
    began = time.monotonic()
    galaxy = opened(**lane["orders"], run=lane.get("run"))
    own = {field: lane[field] for field in ("number", "of", "registry", "sources")}
    with progress() as shown:
        result = pipeline.generate(galaxy, lane=pipeline.Lane(**own), last_stage=name, progress=shown, wait=False)
    counts = [home.stages[name].counts for home in result.homes if name in home.stages]
    asked = [each for each in counts if each is not None]
    found = receipt(
        f"{name}, lane {lane['number'] + 1} of {lane['of']}",
        began,
        shards=len(result.matches),
        unchanged=len(counts) - len(asked) if counts else 0,
        units_in=sum(each.units_in for each in asked),
        units_out=sum(each.units_out for each in asked),
        rejects=sum(sum(each.rejects.values()) for each in asked),
        pending=result.pending,
        calls=result.usage.calls,
        cost=result.usage.cost / NANO,
        encoded=galaxy.encoder.passes if "encoder" in galaxy.__dict__ else 0,
        reasons=result.reasons,
        unaffordable=result.unaffordable,
    )
    if result.held and not last_try:
        raise LeaseLostError(result.held)
    # Homes that wait for a batch anyway ask the others again then, and need no try for it.
    stuck = any(home.pending and not home.waiting for home in result.homes)
    if stuck and result.usage.gave_up and not last_try:
        raise UnansweredError(f"{result.pending} units have no answer yet: {'; '.join(result.reasons)}")
    defer(result.waiting, galaxy.settings, since)
    return found


def defer(those: Sequence[awaiting.Waiting], settings: Settings, since: datetime) -> None:
    """Give the slot back until one of these batches has ended; does nothing where there is none, or no time left."""
    batch = settings.run.batch
    poll = max(batch.poll_seconds, _LEAST_POLL_SECONDS)
    longest = math.inf if batch.wait_seconds is None else batch.wait_seconds
    until = since.timestamp() + min(longest, settings.airflow.lane_hours * 3600)
    if those and time.time() + 2 * poll <= until:  # time for a look, whenever the triggerer takes it up
        log.info("deferred until one of %s batches has ended", f"{len(those):,}")
        trigger = BatchEnd(awaiting.plain(those), {**batch.model_dump(), "poll_seconds": poll}, until)
        raise TaskDeferred(trigger=trigger, method_name=WaitingOperator.call_again.__name__)


def announce_samples(outlet: Any, source: str, lane_plans: Sequence[Mapping[str, Any]], votes: Sequence[Any]) -> None:
    """A run of a source has ended, whole or not: a release may be waiting for it. ``lane_plans`` empty: of none."""
    galaxy = opened()
    upto = lane_plans[0]["upto"] if lane_plans else announcements.seen(galaxy)
    pending = sum(each["pending"] for each in votes)
    announcements.ended(galaxy, source, upto, pending)
    outlet.add_partitions(source)
    log.info("%s has ended, %s units pending", source, f"{pending:,}")


def complete(
    source: str, lane_plans: Sequence[Mapping[str, Any]] | None, votes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Green if every lane is whole; else red, and names what is missing and why. ``lane_plans`` None: none was made."""
    began = time.monotonic()
    if lane_plans is None:
        raise PendingError(f"{source}: the task `lanes` failed, and its log says why. Mend it, then clear it.")
    pending = sum(each["pending"] for each in votes)
    reasons = list(dict.fromkeys(reason for each in votes for reason in each["reasons"]))
    if len(votes) < len(lane_plans):
        raise PendingError(
            f"{source}: {len(lane_plans) - len(votes)} of {len(lane_plans)} lanes failed; their tasks say why. "
            "What was answered is kept: clear them to go on."
        )
    if pending:
        if any(each.get("unaffordable") for each in votes):
            reasons += money_views.rest(forecast(opened(), [source]))
        raise PendingError(
            f"{source}: {pending:,} units have no answer yet ({'; '.join(reasons)}). What was answered is kept: "
            "mend it, then trigger galaxy_generate or galaxy_backfill for this source."
        )
    return receipt(
        f"generate {source}",
        began,
        lanes=len(votes),
        units_in=sum(each["units_in"] for each in votes),
        samples=sum(each["units_out"] for each in votes),
    )


# --- release


def ready(announced: bool) -> None:
    """Whether a release has to wait: for sources that were announced together, or for answers. By hand: never."""
    galaxy = opened()
    if not announced:
        return
    if waiting := announcements.awaited(galaxy):
        raise AirflowSkipException(
            f"waiting for {', '.join(waiting)}, announced together: the last one starts a release"
        )
    if pending := Harvest(galaxy).pending:
        raise AirflowSkipException(f"{pending:,} units have no answer yet; the next run that ends starts a release")


def release(form: Mapping[str, Any], announced: bool) -> dict[str, Any]:
    """Publish a release if it differs from the latest, and its contact sheet."""
    began = time.monotonic()
    galaxy = opened(form.get("settings_version"))
    named = {name: form[name] for name in ReleaseSettings.model_fields if form.get(name) is not None}
    if named:
        rules = ReleaseSettings(**{**galaxy.settings.release.model_dump(), **named})
        galaxy = Galaxy(galaxy.settings.model_copy(update={"release": rules}), galaxy.store)
    harvest = Harvest(galaxy)
    try:
        with progress() as shown:
            made = publishing.publish(galaxy, partial=bool(form.get("partial")), harvest=harvest, progress=shown)
    except SourceError as error:
        if announced:  # nothing has been accepted yet: no error of anybody's who triggered it
            raise AirflowSkipException(str(error)) from error
        raise
    page = f"release-{made.release.name}"
    if made.made:
        data = reporting.report_data(harvest, title=f"TaskGalaxy {made.release.name}", release_counts=made.funnel)
        galaxy.store.replace(keys.report(page), render(data).encode())
    for line in views.released(made, None):
        log.info(line)
    return receipt(
        f"release {made.release.name}",
        began,
        version=made.release.name,
        made=made.made,
        samples=made.release.samples,
        task_types=made.release.task_types,
        images=made.release.images,
        partial=made.release.partial,
        page=page,
    )


def announce_release(outlet: Any, made: Mapping[str, Any]) -> None:
    """Tell what waits for new releases; skipped where the latest stands."""
    if not made["made"]:
        raise AirflowSkipException(f"equal to {made['version']}, which stands")
    outlet.add_partitions(made["version"])


# --- fine-tune


def check_tuning(form: Mapping[str, Any], partition: str | None) -> dict[str, Any]:
    """A release that is whole and may be trained on, and its jobs rendered; stops them if the form asks for that."""
    began, galaxy = time.monotonic(), finetuning.on_backend(opened(), form["backend"])
    found = finetuning.tuning(galaxy, release=form["release"] or partition, recipe=form["recipe"])
    if form["cancel"]:
        trainings = finetuning.Trainings(galaxy, "cancel", _backend(galaxy))
        stopped = [job.name for job in found.jobs.values() if trainings.cancel(job)]
        raise AirflowSkipException(f"cancelled: {', '.join(stopped) or 'none of these jobs was running'}")
    for job in found.jobs.values():
        job.write()
    return receipt(
        "to be trained",
        began,
        release=found.release.name,
        recipe=form["recipe"] or galaxy.settings.finetune.recipe,
        backend=galaxy.settings.finetune.backend,
        jobs={role: job.key for role, job in found.jobs.items()},
    )


def _backend(galaxy: Galaxy) -> TrainBackend:
    """The settings' backend; Kubernetes' with the credentials of Airflow's connection."""
    chosen = galaxy.settings.finetune
    if chosen.backend == "kubernetes" and chosen.kubernetes:
        from galaxy_airflow.kubernetes import batch_api
        from taskgalaxy_ops.finetune.backends.kubernetes import KubernetesBackend

        return KubernetesBackend(chosen.kubernetes, batch_api(chosen.kubernetes.connection))
    return open_backend(chosen)


def train(checked: Mapping[str, Any], run: str) -> bool:
    """One look at the jobs: submits what is next, shows how far they are; whether all have succeeded."""
    galaxy = finetuning.on_backend(opened(), checked["backend"])
    found = finetuning.written(galaxy, checked["release"], checked["jobs"])
    done = finetuning.Trainings(galaxy, run, _backend(galaxy)).done(found.jobs)
    for role, text in finetuning.progress_lines(found.jobs).items():
        log.info("%s: %s", role, text)
    return done


def evaluate(checked: Mapping[str, Any], benchmarks: Sequence[str]) -> dict[str, Any]:
    """Scores of the checkpoints, and the result card."""
    began, galaxy = time.monotonic(), finetuning.on_backend(opened(), checked["backend"])
    found = finetuning.written(galaxy, checked["release"], checked["jobs"])
    with progress() as shown:
        scored = scoring.score_tuning(galaxy, found, benchmarks, shown)
    for line in views.scored(scored):
        log.info(line)
    return receipt(
        f"scored {found.recipe.name} on {found.release.name}",
        began,
        scores=scored.identity,
        verdicts={f"{each.benchmark} {each.family}".strip(): each.verdict for each in scored.comparisons},
        page=scored.page,
    )


# --- taxonomy


def propose(form: Mapping[str, Any], scheduled: bool, run: str, since: datetime) -> dict[str, Any]:
    """Grow the newest version into a proposal. Skipped where nothing new came, or nowhere images crowd.

    run: what its calls are made for; since: when this try began. Raises TaskDeferred while batches are under way.
    """
    began, galaxy = time.monotonic(), opened(run=run)
    rules, below, most = galaxy.settings.taxonomy, None, form["max_new"]
    if scheduled:
        most = rules.scheduled_new
    if scheduled or form["where_images_crowd"]:
        below = crowded(galaxy, rules.scheduled_images_a_type)
        if not below:
            raise AirflowSkipException(
                f"no node has {rules.scheduled_images_a_type:g} fitting images a task type: the taxonomy is wide enough"
            )
    try:
        with progress() as shown:
            result = expand(
                galaxy,
                rounds=form["rounds"],
                max_new=most,
                up_to=form.get("up_to"),
                below=below,
                publish=False,
                progress=shown,
                wait=False,
            )
    except PendingError as error:
        defer(error.waiting, galaxy.settings, since)
        raise
    if result.proposal is None:
        raise AirflowSkipException(f"nothing new was proposed ({len(result.rejects)} proposals rejected)")
    found = Catalogue(galaxy).proposal(result.proposal)
    page = f"proposal-{result.proposal}"
    galaxy.store.replace(keys.report(page), reporting.proposal_page(found, galaxy.settings.simulated).encode())
    return receipt(
        "proposed",
        began,
        proposal=result.proposal,
        base=found.base,
        added=len(found.added),
        rejects=len(found.rejects),
        calls=result.usage.calls,
        cost=result.usage.cost / NANO,
        page=page,
    )


def needs_person(proposed: Mapping[str, Any]) -> bool:
    """Whether the settings ask for a person's approval of this proposal."""
    rules = ready_settings().taxonomy
    if rules.approval == "by_rule":
        return bool(proposed["added"] > rules.approve_up_to)
    return rules.approval == "required"


def proposal_text(number: int) -> str:
    """What a person decides upon, as Markdown: branches, counts, rejected neighbours."""
    return reporting.proposal_markdown(Catalogue(opened()).proposal(number))


def publish_proposal(proposed: Mapping[str, Any]) -> dict[str, Any]:
    """Make a proposal the newest version."""
    began, galaxy = time.monotonic(), opened()
    catalogue = Catalogue(galaxy)
    found = catalogue.proposal(proposed["proposal"])
    version = catalogue.publish(found.base, found.nodes, found.rejects, "expand")
    leaves = len(catalogue.version(version).leaves())
    return receipt("published", began, version=version, added=len(found.added), task_types=leaves)


# --- backfill


def plan(form: Mapping[str, Any]) -> dict[str, Any]:
    """What a backfill would ask; an older taxonomy version becomes the newest unless it is a dry run."""
    began = time.monotonic()
    galaxy = opened(form.get("settings_version"))
    sources = list(form["sources"] or sorted(galaxy.registry.scans()))
    if not sources:
        raise SourceError("backfill: no source is registered. Run galaxy_ingest or galaxy_watch first.")
    catalogue = Catalogue(galaxy)
    newest = catalogue.version().number
    version = newest if form.get("taxonomy_version") is None else form["taxonomy_version"]
    found = planning.plan(galaxy, sources, taxonomy=version)
    for line in look_views.plan(found):
        log.info(line)
    if version != newest and not form["dry_run"]:
        newest = catalogue.publish(newest, catalogue.version(version).nodes, [], f"backfill of version {version}")
    page = reporting.plan_page(found, sources, version)
    name = f"plan-{reporting.page_name(page)}"
    galaxy.store.replace(keys.report(name), page.encode())
    max_cost = None if form.get("budget") is None else galaxy.ledger().spent().cost / NANO + form["budget"]
    return receipt(
        "planned",
        began,
        sources=sources,
        taxonomy_version=version,
        shards=found.homes,
        units={each.stage: round(each.units.expected) for each in found.stages},
        cost=None if (cost := found.total("cost")) is None else cost.expected,
        orders={"settings_version": form.get("settings_version"), "max_cost": max_cost},
        page=name,
    )


def forecast_backfill(planned: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """What the planned would cost, with an interval; asks about a few images first where too little is known.

    What they lack afterwards (a model out of reach, a batch under way) leaves its source without a forecast.
    """
    if not wanted:
        raise AirflowSkipException("no forecast was asked for")
    began, galaxy = time.monotonic(), opened(**planned["orders"])
    sources, version = planned["sources"], planned["taxonomy_version"]
    with progress() as shown:
        asked = probe(galaxy, None, sources, version, shown, wait=False)
    found = forecast(galaxy, sources, version)
    record(galaxy, found)
    for line in (*money_views.forecast(found), *asked.reasons):
        log.info(line)
    page = reporting.forecast_page(found, sources, asked.reasons)
    name = f"forecast-{reporting.page_name(page)}"
    galaxy.store.replace(keys.report(name), page.encode())
    return receipt(
        "forecast",
        began,
        calls=asked.usage.calls,
        encoded=galaxy.encoder.passes if "encoder" in galaxy.__dict__ else 0,
        cost=asdict(found.cost),
        list_cost=asdict(found.list_cost),
        tokens=asdict(found.tokens),
        unknown=list(found.unknown),
        page=name,
    )


def announce_backfill(outlet: Any, planned: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Announce the chosen sources again; skipped in a dry run."""
    if dry_run:
        raise AirflowSkipException("a dry run: nothing is announced")
    orders = {name: value for name, value in planned["orders"].items() if value is not None}
    return announce(outlet, planned["sources"], "backfill", **orders)


# --- upkeep and doctor


def check_store() -> dict[str, Any]:
    """Verify everything; red where something is damaged."""
    began, galaxy = time.monotonic(), opened()
    with progress() as shown:
        found = verify(galaxy, shown)
    for line in views.verified(found):
        log.info(line)
    if found.damage:
        raise AirflowFailException(f"{len(found.damage)} damaged: {'; '.join(found.damage[:_SHOWN])}")
    return receipt("verified", began, **found.checked)


def garbage(form: Mapping[str, Any]) -> dict[str, Any]:
    """What nothing refers to and is older than the form's grace period: counted, or deleted."""
    began, galaxy = time.monotonic(), opened()
    delete, grace = bool(form.get("delete")), float(form.get("grace_days", 7)) * 86400
    with progress() as shown:
        found = upkeep.collect(galaxy, grace_seconds=grace, delete=delete, progress=shown)
    done = "unreferenced, deleted" if delete else "unreferenced (dry run)"
    return receipt(done, began, objects=found.objects, bytes=found.size, young=found.young, first=list(found.first))


def finish_takedowns() -> dict[str, Any]:
    """Go on with every take-down; red where something is left."""
    began, galaxy = time.monotonic(), opened()
    with progress() as shown:
        found = takedown.finish(galaxy, shown)
    if left := list(takedown.left(galaxy)):
        raise AirflowFailException(f"take-downs: {len(left)} things are left: {'; '.join(left[:_SHOWN])}")
    return receipt("take-downs finished", began, images=len(found.images), shards=found.shards)


def compact() -> dict[str, Any]:
    """Fold long journals and the budget's ledger."""
    began, galaxy = time.monotonic(), opened()
    with progress() as shown:
        folded = upkeep.compact(galaxy, shown)
    return receipt("compacted", began, logs=folded)


def examine(part: str) -> dict[str, Any]:
    """One part of the doctor's examination; red where something needs a fix, and names it."""
    began = time.monotonic()
    settings = ready_settings()
    found = list(doctor.CHECKS[part](settings))
    for finding in found:
        (log.info if finding.fine else log.error)("%s: %s", finding.what, finding.detail)
    if ill := [finding for finding in found if not finding.fine]:
        raise SettingsError("\n".join(f"{finding.what}: {finding.detail}" for finding in ill))
    return receipt(f"doctor, {part}", began, fine=len(found))
