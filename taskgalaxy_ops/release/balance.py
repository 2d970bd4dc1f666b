"""What a release takes of each task type: licences, a cap, a share of the task types, a number of samples in all.

Whatever is drawn is drawn by hash, so that it depends on no order, and what a smaller choice takes a larger one takes
too. Tables as in sqlite_staging.py.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Mapping

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import Reason, TaskTypePath
from taskgalaxy_ops.release.licences import UNKNOWN, identifier
from taskgalaxy_ops.settings import BalanceSettings

# Samples of a task type in the order in which they are kept: one of every image before a second of any, by hash.
_PLACES = (
    "SELECT id, task_type, row_number() OVER (PARTITION BY task_type ORDER BY taken, drawn, pair) AS place FROM "
    "(SELECT *, row_number() OVER (PARTITION BY task_type, image ORDER BY drawn, pair) AS taken FROM "
    "(SELECT rowid AS id, task_type, image, pair, draw('cap', pair) AS drawn FROM pairs "
    "WHERE image IS NOT NULL AND reason IS NULL))"
)


def leave_out_unlicensed(rows: sqlite3.Connection, allowed: Collection[str]) -> None:
    """Reject samples about an image of which a live source states a licence that is not allowed, or none at all.

    allowed: licences as a source states them, or the Hub's identifiers; ``unknown``: where none is stated. An image
    that is not allowed stands for no other one either.
    """
    found = []
    for image, claims in rows.execute("SELECT image, claims FROM images"):
        stated = {claim.get("licence") for claim in json.loads(claims)}
        if others := sorted(each or UNKNOWN for each in stated if {each, identifier(each)}.isdisjoint(allowed)):
            found.append((image, ", ".join(others)))
    rows.execute("CREATE TABLE unlicensed (image TEXT PRIMARY KEY, licence TEXT) WITHOUT ROWID")
    rows.executemany("INSERT INTO unlicensed VALUES (?, ?)", found)
    rows.execute("UPDATE images SET wanted = 0 WHERE image IN (SELECT image FROM unlicensed)")
    rows.execute(
        "UPDATE pairs SET reason = ?, detail = licence FROM (SELECT p.pair AS left_out, min(u.licence) AS licence FROM "
        "(SELECT pair, image FROM pairs UNION ALL SELECT pair, image FROM further) p JOIN unlicensed u USING (image) "
        "GROUP BY p.pair) WHERE pair = left_out AND coalesce(reason, ?) = ?",
        (Reason.OTHER_LICENCE, Reason.DUPLICATE_PAIR, Reason.DUPLICATE_PAIR),
    )


def leave_out_over_cap(rows: sqlite3.Connection, cap: int) -> None:
    """Reject samples over the cap. A task type keeps one sample of every image before a second of any, by hash."""
    rows.execute(
        f"UPDATE pairs SET reason = ?, detail = ? WHERE rowid IN (SELECT id FROM ({_PLACES}) WHERE place > ?)",
        (Reason.OVER_CAP, f"release.cap is {cap}", cap),
    )


def balance(rows: sqlite3.Connection, chosen: BalanceSettings) -> None:
    """Reject what is more than a form's share, the task types that are not taken, and more than a task type's part."""
    if chosen.forms is not None:
        _leave_out_forms(rows, chosen.forms)
    there = dict(
        rows.execute("SELECT task_type, count(*) FROM pairs WHERE image IS NOT NULL AND reason IS NULL GROUP BY 1")
    )
    enough = {path: number for path, number in there.items() if number >= chosen.floor}
    taken = drawn_types(enough, chosen.task_types)
    parts = shares({path: enough[path] for path in taken}, chosen.samples, chosen.temperature)
    _leave_out(rows, dict.fromkeys(there.keys() - enough.keys(), 0), Reason.UNDER_FLOOR, f"floor {chosen.floor}")
    of = f"release.balance.task_types is {chosen.task_types:g}"
    _leave_out(rows, dict.fromkeys(enough.keys() - set(taken), 0), Reason.OTHER_TASK_TYPES, of)
    _leave_out(rows, parts, Reason.OVER_CAP, f"release.balance.samples is {chosen.samples}")


def _leave_out_forms(rows: sqlite3.Connection, weights: Mapping[str, float]) -> None:
    """Keep of each form as many samples as its weight says beside the scarcest one, drawn by hash."""
    there = dict(
        rows.execute("SELECT variant, count(*) FROM pairs WHERE image IS NOT NULL AND reason IS NULL GROUP BY 1")
    )
    scale = min(there.get(form, 0) / weight for form, weight in weights.items())
    most = {form: int(weights.get(form, 0) * scale + 1e-9) for form in there}
    told = ", ".join(f"{form} {weight:g}" for form, weight in sorted(weights.items()))
    drawn = "row_number() OVER (PARTITION BY variant ORDER BY draw('forms', pair), pair)"
    rows.create_function("share_of", 1, most.__getitem__, deterministic=True)
    rows.execute(
        f"UPDATE pairs SET reason = ?, detail = ? WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, variant, {drawn} "
        "AS place FROM pairs WHERE image IS NOT NULL AND reason IS NULL) WHERE place > share_of(variant))",
        (Reason.OTHER_VARIANT, f"release.balance.forms: {told}"),
    )


def _leave_out(rows: sqlite3.Connection, most: Mapping[TaskTypePath, int], reason: Reason, detail: str) -> None:
    """Reject what these task types have more than this."""
    rows.execute("CREATE TEMP TABLE IF NOT EXISTS parts (task_type TEXT PRIMARY KEY, most INTEGER) WITHOUT ROWID")
    rows.execute("DELETE FROM parts")
    rows.executemany("INSERT INTO parts VALUES (?, ?)", most.items())
    rows.execute(
        f"UPDATE pairs SET reason = ?, detail = ? WHERE rowid IN (SELECT id FROM ({_PLACES}) JOIN parts "
        "USING (task_type) WHERE place > most)",
        (reason, detail),
    )


def drawn_types(there: Collection[TaskTypePath], share: float) -> list[TaskTypePath]:
    """A share of the task types, of each first-level branch, rounded up; a larger share has all of a smaller one."""
    by_branch: dict[str, list[TaskTypePath]] = {}
    for path in there:
        by_branch.setdefault(path.partition("~")[0], []).append(path)
    found: list[TaskTypePath] = []
    for _, paths in sorted(by_branch.items()):
        paths.sort(key=lambda path: (draw("task types", path), path))
        found += paths[: math.ceil(share * len(paths) - 1e-9)]
    return sorted(found)


def shares(there: Mapping[TaskTypePath, int], samples: int | None, temperature: float) -> dict[TaskTypePath, int]:
    """How many samples each task type keeps: in proportion to ``number ** (1 / temperature)``, none more than it has.

    They add up to ``samples``, or to all where there are fewer; None: all are kept. temperature: 1 keeps proportions;
    the higher, the more even. What rounding leaves goes to the largest remainders, then by path.
    """
    if samples is None or sum(there.values()) <= samples:
        return dict(there)
    weights = {path: number ** (1 / temperature) for path, number in there.items()}
    found: dict[TaskTypePath, int] = {}
    left, open_ = samples, dict(weights)
    while open_:  # those that have less than their part keep all; the others share what that leaves
        scale = left / sum(open_.values())
        small = [path for path, weight in open_.items() if there[path] <= weight * scale]
        if not small:
            break
        for path in small:
            found[path] = there[path]
            left -= there[path]
            del open_[path]
    exact = {path: weight * left / sum(open_.values()) for path, weight in open_.items()}
    found |= {path: int(part) for path, part in exact.items()}
    rest = samples - sum(found.values())
    for path in sorted(exact, key=lambda path: (found[path] - exact[path], path))[:rest]:
        found[path] += 1
    return found
