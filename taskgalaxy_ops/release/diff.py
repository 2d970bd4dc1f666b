"""Two published releases compared: samples added, gone and changed, and why; what they were made with; asks nothing.

Of the latest release the reasons are those of today's answers, if it is what would be released today. Of others they
are what is kept of them: what its rules left out, its taxonomy, and the take-downs and sources of today.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import NotFoundError, SettingsError, TaxonomyError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.records import ImageId, PairId, TaskTypePath, images_in
from taskgalaxy_ops.release import changes, published_rows
from taskgalaxy_ops.release.changes import Loss, ReleaseChanges
from taskgalaxy_ops.release.publish import Published, published, release_inputs
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.release.sqlite_staging import SPLITS, database
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import TaxonomyVersion
from taskgalaxy_ops.workspace import Workspace

EXAMPLES = 20  # of each kind

Words = tuple[str, str]  # question and answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sample that is gone, was added or has other words."""

    image: ImageId
    task_type: TaskTypePath
    why: str | None  # of one that is gone
    before: Words | None
    after: Words | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Something that two releases were made with otherwise."""

    name: str
    before: Any  # None: it was not set, or there was none
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDiff:
    """What a release has against another: kept + added + changed = its samples."""

    before: str  # names
    after: str
    samples: tuple[int, int]  # that they hold now, after take-downs
    kept: int
    added: int
    changed: int  # samples of an image, task type and form that had other words before
    gone: Mapping[str, int]  # by why, without those that changed
    moved: Mapping[str, int]  # of those kept, by "test → train"
    renamed: int  # of those kept, with another path of the task type
    settings: tuple[Setting, ...]
    exact: bool  # the reasons are those of today's answers
    simulated: bool
    examples: tuple[Example, ...]


def release_diff(workspace: Workspace, before: str, after: str) -> ReleaseDiff:
    """Compare two releases by their names. Raises SettingsError where there is none of a name, and DamageError."""
    known = {each.name: each for each in published(workspace)}
    for name in (before, after):
        if name not in known:
            there = ", ".join(known) or "none yet: run `taskgalaxy release`"
            raise SettingsError(f"release diff: there is no release {name!r}. The store has {there}.")
    earlier, later = known[before], known[after]
    if later == list(known.values())[-1]:
        results = RunResults(workspace)
        with release.select_samples(release_inputs(results), workspace.settings.release) as plan:
            if later.content in {plan.content_hash, plan.content_by(later.code)}:
                found = changes.lost_rows(plan, results, earlier)
                return _diff(workspace, plan.rows, earlier, later, found, exact=True)
    rows = database()
    try:
        return _diff(workspace, rows, earlier, later, _by_what_is_kept(workspace, rows, earlier, later), exact=False)
    finally:
        rows.close()


def _by_what_is_kept(
    workspace: Workspace, rows: sqlite3.Connection, earlier: Published, later: Published
) -> ReleaseChanges:
    """Compare by the releases' files alone, and what else the store keeps of them."""
    taxonomy = _taxonomy_of(workspace, later)
    rows.executescript(
        "CREATE TABLE chosen (pair TEXT PRIMARY KEY, picture INTEGER, task_type TEXT, variant TEXT, split INTEGER); "
        "CREATE TABLE pictures (image TEXT UNIQUE);"
    )
    for pair, image, task_type, variant, split in ReleaseRows(workspace.store, later.version).samples_in_splits():
        rows.execute("INSERT OR IGNORE INTO pictures VALUES (?)", (image,))
        rows.execute(
            "INSERT INTO chosen SELECT ?, rowid, ?, ?, ? FROM pictures WHERE image = ?",
            (pair, task_type, variant, SPLITS.index(split), image),
        )
    left_out = published_rows.left_out(workspace.store, later.version) or []
    rows.executemany("INSERT INTO pairs (pair, reason) VALUES (?, ?)", ((each.pair, each.reason) for each in left_out))
    changes.load_earlier(rows, workspace, earlier, taxonomy)

    def explain() -> None:
        leaves, dead = changes.Leaves(None, taxonomy), workspace.registry.dead_hashes()
        shards = {shard.id: shard for shard in workspace.registry.shards()}
        for shard in changes.by_shard(rows, workspace):
            gone = changes.dead_images(workspace, shards[shard], dead)
            samples = changes.of_shard(rows, shard)
            whys = []
            for pair, image, of, _, further in samples:
                lost = [gone[each] for each in (image, *images_in(further)) if each in gone]
                whys.append((lost[0] if lost else leaves.gone(of) or Loss.UNTOLD, pair))
            changes.set_why(rows, whys)

    return changes.against(rows, earlier, explain)


def _taxonomy_of(workspace: Workspace, one: Published) -> TaxonomyVersion:
    """The taxonomy that a release was made with; the newest where that is not known."""
    store = TaxonomyStore(workspace)
    try:
        return store.version(_json(workspace, one, release.HISTORY)["taxonomy_version"])
    except (NotFoundError, KeyError, TaxonomyError):
        return store.version()


def _diff(
    workspace: Workspace,
    rows: sqlite3.Connection,
    earlier: Published,
    later: Published,
    found: ReleaseChanges,
    *,
    exact: bool,
) -> ReleaseDiff:
    _match_changed(rows, TaxonomyStore(workspace).version())
    (changed,) = rows.execute("SELECT count(*) FROM rewritten").fetchone()
    gone = dict(found.lost)
    for why, number in rows.execute(
        "SELECT e.why, count(*) FROM rewritten r JOIN earlier e ON e.pair = r.was GROUP BY 1"
    ):
        gone[why] -= number
    manifests = [_json(workspace, each, release.MANIFEST) for each in (earlier, later)]
    return ReleaseDiff(
        before=earlier.name,
        after=later.name,
        samples=(earlier.samples - earlier.withdrawn, later.samples - later.withdrawn),
        kept=found.kept,
        added=found.gained - changed,
        changed=changed,
        gone={why: number for why, number in sorted(gone.items(), key=lambda each: (-each[1], each[0])) if number},
        moved=found.moved,
        renamed=found.renamed,
        settings=tuple(_settings(*(each["made_with"] for each in manifests))),
        exact=exact,
        simulated=any(each["simulated"] for each in manifests),
        examples=tuple(_examples(workspace, rows, earlier, later)),
    )


def _match_changed(rows: sqlite3.Connection, taxonomy: TaxonomyVersion) -> None:
    """Make the table ``rewritten``: of an image, task type and form, a lost sample and a gained one, one to one."""
    rows.create_function("asked_of", 1, taxonomy.asked_of, deterministic=True)
    numbered = "row_number() OVER (PARTITION BY image, task_type, variant ORDER BY pair) AS number"
    rows.execute(
        "CREATE TABLE rewritten AS SELECT e.pair AS was, g.pair AS pair "
        f"FROM (SELECT pair, image, task_type, variant, {numbered} FROM earlier) e "
        f"JOIN (SELECT pair, image, task_type, variant, {numbered} FROM (SELECT c.pair, p.image, "
        "asked_of(c.task_type) AS task_type, c.variant FROM gained JOIN chosen c USING (pair) "
        "JOIN pictures p ON p.rowid = c.picture)) g USING (image, task_type, variant, number)"
    )


def _examples(
    workspace: Workspace, rows: sqlite3.Connection, earlier: Published, later: Published
) -> Iterator[Example]:
    """A few of each kind, drawn by hash: changed, gone by each reason, added."""
    found: list[tuple[str, str, str | None, PairId | None, PairId | None]] = []
    found += rows.execute(
        "SELECT e.image, e.path, NULL, r.was, r.pair FROM rewritten r JOIN earlier e ON e.pair = r.was "
        "ORDER BY draw('diff', r.was) LIMIT ?",
        (EXAMPLES,),
    )
    found += rows.execute(
        "SELECT image, path, why, pair, NULL FROM (SELECT *, row_number() OVER (PARTITION BY why ORDER BY "
        "draw('diff', pair)) AS number FROM earlier WHERE pair NOT IN (SELECT was FROM rewritten)) WHERE number <= ? "
        "ORDER BY why, number",
        (EXAMPLES,),
    )
    found += rows.execute(
        "SELECT p.image, c.task_type, NULL, NULL, c.pair FROM gained JOIN chosen c USING (pair) JOIN pictures p "
        "ON p.rowid = c.picture WHERE c.pair NOT IN (SELECT pair FROM rewritten) ORDER BY draw('diff', c.pair) LIMIT ?",
        (EXAMPLES,),
    )
    before = ReleaseRows(workspace.store, earlier.version).words_of({each[3] for each in found if each[3]})
    after = ReleaseRows(workspace.store, later.version).words_of({each[4] for each in found if each[4]})
    for image, task_type, why, was, now in found:
        yield Example(
            image=image,
            task_type=task_type,
            why=why,
            before=before.get(was) if was else None,
            after=after.get(now) if now else None,
        )


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Setting]:
    """What differs of what two releases were made with, by dotted names, in order of name."""
    was, now = dict(_flat("", before)), dict(_flat("", after))
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name) and name != "fingerprint":
            yield Setting(name=name, before=was.get(name), after=now.get(name))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values below a name; of a list of models, each by its own name."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        value = {each["name"]: each for each in value}
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), below)
    else:
        yield name, value


def _json(workspace: Workspace, one: Published, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(workspace.store.get(keys.release(one.version) + path))
    return found
