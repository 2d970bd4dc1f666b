"""What a person asks of a store: status (where it stands), plan (what a run would ask), explain (why is this here?)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.canonical import draw
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.errors import NotFoundError, SourceError, TaskGalaxyError
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.generation import ASKING_STAGES
from taskgalaxy_ops.harvest import Harvest, Tally
from taskgalaxy_ops.publishing import published
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.storage.budget import NANO


def status(galaxy: Galaxy) -> dict[str, Any]:
    """Sources, images, taxonomy, how far each stage is, what is spent, what was released.

    Asks nothing; may encode images and task types that have no embedding yet.
    """
    catalogue = Catalogue(galaxy)
    versions = catalogue.versions()
    spent, budget = galaxy.ledger().spent(), galaxy.settings.budget
    found: dict[str, Any] = {
        "store": galaxy.settings.store,
        "simulated": galaxy.settings.simulated,
        "sources": _sources(galaxy),
        "taxonomy": {"version": len(versions) - 1, "task_types": versions[-1]["leaves"]},
        "spent": {
            "calls": spent.calls,
            "max_calls": budget.max_calls,
            "cost": spent.cost / NANO,
            "max_cost": budget.max_cost,
        },
        "releases": [
            {"version": each.version, "samples": each.samples, "partial": each.partial} for each in published(galaxy)
        ],
    }
    if found["sources"]:
        harvest = Harvest(galaxy)
        found["images"] = harvest.live_images
        found["stages"] = [asdict(stage) for stage in harvest.funnel]
        found["pending"] = harvest.pending
        found["simulated"] = harvest.simulated
    return found


def _sources(galaxy: Galaxy) -> list[dict[str, Any]]:
    return [
        {"source": scan.source, "location": scan.location, "images": scan.claims.rows, "rejects": scan.rejects.rows}
        for scan in galaxy.registry.scans().values()
    ]


def plan(galaxy: Galaxy, sources: Sequence[str] | None = None, taxonomy: int | None = None) -> dict[str, Any]:
    """What a run would ask now, and about what it would cost.

    What is known for certain: the units of the first stage that lacks answers, of each home. What follows from them
    is forecast from the shares that passed so far (all of them, where nothing was asked yet). Costs a call are those
    that the journals show, else list prices are unknown and the cost is None. May encode images and task types.
    """
    result = pipeline.generate(galaxy, sources=sources, ask=False, commit=False, taxonomy=taxonomy)
    harvest = Harvest(galaxy, result)
    known = {stage: sum(h.stages[stage].missing for h in result.homes if stage in h.stages) for stage in ASKING_STAGES}
    paid = harvest.paid
    funnel = {counts.stage: counts for counts in harvest.funnel}
    variants = len(galaxy.settings.write.variants)
    passing = {
        stage: _share(funnel[stage].units_out, funnel[stage].units_in - funnel[stage].pending) for stage in known
    }
    judges = _judges_a_pair(harvest) or galaxy.settings.vote.quorum
    units = {
        "filter": float(known["filter"]),
        "write": known["write"] + known["filter"] * passing["filter"] * variants,
    }
    units["vote"] = known["vote"] + units["write"] * passing["write"] * judges
    size = galaxy.settings.run.units_a_request
    stages = []
    for stage, count in units.items():
        tally = paid.by_stage.get(stage, Tally())
        calls = math.ceil(count / _units_a_call(harvest, stage, tally, size)) if count else 0
        cost = calls * tally.cost / tally.calls / NANO if tally.calls else (0.0 if not calls else None)
        stages.append(
            {"stage": stage, "units_known": known[stage], "units": round(count), "calls": calls, "cost": cost}
        )
    return {"homes": len(result.homes), "stages": stages, "pending": result.pending}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _judges_a_pair(harvest: Harvest) -> float:
    verdicts = harvest.count("vote", "verdicts")
    return harvest.count("vote", "votes") / verdicts if verdicts else 0.0


def _units_a_call(harvest: Harvest, stage: str, tally: Tally, size: int) -> float:
    """Units that a call carried so far; half of the most that it may where nothing was asked yet."""
    answered = {counts.stage: counts.units_in - counts.pending for counts in harvest.funnel}
    units = harvest.count("vote", "votes") if stage == "vote" else answered.get(stage, 0)
    return max(1.0, units / tally.calls) if tally.calls and units else max(1.0, size / 2)


def forecast(harvest: Harvest, files: int) -> dict[str, Any]:
    """The full bill of ``files`` files of which the harvest is a random part, with a 95 % interval over images.

    Each image's share of a stage's cost follows its units; the interval is the normal one of a mean
    (1.96 standard errors), so with few images it is wide, and honest about that.
    """
    paid = harvest.paid
    images = sorted(harvest.images)
    if not images:
        raise SourceError("pilot: no image passed, so there is nothing to forecast from.")
    units: dict[str, Counter[str]] = {stage: Counter() for stage in ASKING_STAGES}
    for row in harvest.relevant:
        units["filter"][row.image] += 1
    for reject in harvest.rejects:
        if reject.stage != "vote":
            units[reject.stage][reject.image] += 1
    for pair in harvest.pairs.values():
        units["write"][pair.image] += 1
        units["vote"][pair.image] += len(harvest.votes.get(pair.pair, ()))
    kept = next(counts for counts in harvest.funnel if counts.stage == "ingest")
    expected_images = files * kept.units_out / kept.units_in

    def full(amount: Mapping[str, float]) -> dict[str, float]:
        costs = [
            sum(amount.get(s, 0.0) * units[s][i] / max(1, units[s].total()) for s in ASKING_STAGES) for i in images
        ]
        mean = sum(costs) / len(costs)
        spread = math.sqrt(sum((c - mean) ** 2 for c in costs) / max(1, len(costs) - 1) / len(costs))
        low, high = max(0.0, mean - 1.96 * spread), mean + 1.96 * spread
        return {name: value * expected_images for name, value in (("low", low), ("expected", mean), ("high", high))}

    tallies = {stage: paid.by_stage.get(stage, Tally()) for stage in ASKING_STAGES}
    samples = Counter(pair.image for pair in harvest.samples)
    return {
        "files": files,
        "images": round(expected_images),
        "samples": round(samples.total() / len(images) * expected_images),
        "calls": full({stage: float(tally.calls) for stage, tally in tallies.items()}),
        "cost": full({stage: tally.cost / NANO for stage, tally in tallies.items()}),
        "list_cost": full({stage: tally.list_cost / NANO for stage, tally in tallies.items()}),
    }


def sample_names(names: Sequence[str], count: int) -> set[str]:
    """``count`` of the names, drawn by hash: the same ones each time, none favoured by its place."""
    return set(sorted(names, key=lambda name: draw("pilot", name))[:count])


def explain(galaxy: Galaxy, what: str) -> dict[str, Any]:
    """All that is known of an image (id or its beginning, or file name), a rejected file, a pair or a sample.

    Raises TaskGalaxyError if nothing, or more than one thing, goes by that name.
    """
    harvest = Harvest(galaxy)
    images = {i for i in harvest.images if i.startswith(what)}
    images |= {c.image for claims in harvest.claims.values() for c in claims if c.file == what}
    pairs = [pair for pair in harvest.pairs if pair.startswith(what)]
    rejected = [asdict(reject) for reject in harvest.file_rejects if reject.file == what]
    if rejected and not images:
        return {"rejected": rejected}
    if len(images) + len(pairs) != 1:
        raise TaskGalaxyError(
            f"explain {what!r}: {len(images)} images and {len(pairs)} pairs go by that name. "
            "Give the beginning of one id (the page shows them), or a file's path within its source."
        )
    image = images.pop() if images else harvest.pairs[pairs[0]].image
    return {
        "image": asdict(harvest.images[image]),
        "claims": [asdict(claim) for claim in harvest.claims[image]],
        "matches": _fates(galaxy, harvest, image, pairs[0] if pairs else None),
    }


def _fates(galaxy: Galaxy, harvest: Harvest, image: str, only: str | None) -> list[dict[str, Any]]:
    """Each match of an image: how far it came, and why not further."""
    wanted = harvest.pairs[only].task_type if only else None
    fitting = {row.task_type: row.reason for row in harvest.relevant if row.image == image}
    found = []
    for match in sorted(_matches(galaxy, harvest, image), key=lambda match: match.rank):
        if wanted not in {None, match.task_type}:
            continue
        fate: dict[str, Any] = {"task_type": match.task_type, "rank": match.rank, "similarity": match.similarity}
        fate["fits"] = fitting.get(match.task_type)
        mine = [r for r in harvest.rejects if (r.image, r.task_type) == (image, match.task_type)]
        fate["rejected"] = [f"{reject.stage}: {reject.reason} ({reject.detail})" for reject in mine]
        fate["pairs"] = [
            {
                **asdict(pair),
                "accepted": verdict.accepted if verdict else None,  # None: votes are pending
                "votes": [asdict(v) for v in harvest.votes.get(pair.pair, ())],
            }
            for pair in harvest.pairs.values()
            if (pair.image, pair.task_type) == (image, match.task_type)
            for verdict in [harvest.verdicts.get(pair.pair)]
        ]
        found.append(fate)
    return found


def _matches(galaxy: Galaxy, harvest: Harvest, image: str) -> list[Match]:
    for shard in harvest.result.matches.values():
        rows = galaxy.shards.load(shard, "matches", Match)
        if mine := [match for match in rows if match.image == image]:
            return mine
    raise NotFoundError(f"image {image}: no matches yet. Run `taskgalaxy generate`.")
