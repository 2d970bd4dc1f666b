"""Every key of the store, in one place. docs/store-format.md is the written form of this module.

No name that a user or a model chose is ever part of a key: sources, files and labels live inside the objects.
"""

from __future__ import annotations

LAYOUT_VERSION = 2

LAYOUT = "taskgalaxy.json"
PROBE = "probes/conditional"

# Prefixes of all that is of one kind.
BLOBS = "blobs/"  # images' bytes
DATA = "data/"  # Parquet objects
IMAGE_SHARDS = "homes/"  # what belongs to one image shard, by its id: markers, journal, lease
EMBEDDINGS = "embeddings/"  # encoders' identities, and task types' embeddings
RELEASES = "releases/"
NUMBERED_RELEASES = f"{RELEASES}v"  # releases' files, by version
REPORTS = "reports/"  # pages for people
CACHES = "cache/"  # what was put together from other objects
WORKERS = "workers/"  # signs of life
FORMS = "forms/"  # what was found out of models' forms
RENDERED = "rendered/"  # images as models were sent them by URL

LATEST = f"{RELEASES}latest.json"

SETTINGS_LOG = "settings"
REGISTRY_LOG = "registry"
BUDGET_LOG = "budget"
FORECASTS_LOG = "forecasts"
VERSIONS_LOG = "taxonomy/versions"
RELEASES_LOG = f"{RELEASES}log"
EDITS_LOG = "edits"
PROPOSALS_LOG = "taxonomy/proposals"
ANNOUNCEMENTS_LOG = "announcements"
FINETUNE_LOG = "finetune/log"

TAXONOMY_SHARD = "taxonomy"


def blob(image: str) -> str:
    """An image's bytes, as its file held them."""
    return f"{BLOBS}{image[:2]}/{image}"


def renderings(image: str) -> str:
    """Prefix of an image as models were sent it by URL."""
    return f"{RENDERED}{image[:2]}/{image}/"


def rendering(image: str, how: str) -> str:
    """One of them, JPEG; ``how`` is the hash of the rendering's parameters. Made from the blob, and may be deleted."""
    return f"{renderings(image)}{how}.jpg"


def data(rows_hash: str, nonce: str) -> str:
    """A Parquet object: the hash of its canonical rows, and its writer's nonce."""
    return f"{DATA}{rows_hash[:2]}/{rows_hash}-{nonce}.parquet"


def marker(shard: str, stage: str, key: str, output: str) -> str:
    """A shard's marker; its name alone tells a later run what came out."""
    return f"{markers(shard)}{stage}.{key}.{output}.json"


def markers(shard: str) -> str:
    """Prefix of all markers of an image shard."""
    return f"{IMAGE_SHARDS}{shard}/markers/"


def journal(shard: str) -> str:
    """Log of the replies that were paid for."""
    return f"{IMAGE_SHARDS}{shard}/journal"


def tally(shard: str) -> str:
    """What an image shard's journal adds up to; made from it, and replaced at will."""
    return f"{IMAGE_SHARDS}{shard}/tally.json"


def lease(shard: str) -> str:
    """Log of the leases on an image shard."""
    return f"{IMAGE_SHARDS}{shard}/lease"


def worker(group: str, worker: str) -> str:
    """A worker's sign of life, for one limit: ``group`` is the hash of what makes it one."""
    return f"{WORKERS}{group}/{worker}"


def form(group: str) -> str:
    """The form of structured output that a model was found to take; ``group`` as of a worker's sign of life."""
    return f"{FORMS}{group}"


def encoder(settings_hash: str) -> str:
    """What an encoder setting resolved to when the store first used it."""
    return f"{EMBEDDINGS}{settings_hash}.json"


def type_embeddings(encoder: str) -> str:
    """Log of the task types' embeddings under one encoder."""
    return f"{EMBEDDINGS}{encoder}/types"


def report(name: str) -> str:
    """A page for people, made from what the store holds; nothing is computed from it. ``name`` is ours, or a hash."""
    return f"{REPORTS}{name}.html"


def cache(name: str) -> str:
    """What was read out of many objects, put together; may be deleted: whoever needs it reads them again."""
    return f"{CACHES}{name}"


def release(version: int) -> str:
    """Prefix of a release's files."""
    return f"{NUMBERED_RELEASES}{version:06d}/"


def scores(identity: str) -> str:
    """Scores of checkpoints, as Parquet; ``identity`` is a fingerprint of what was scored."""
    return f"finetune/scores/{identity}.parquet"


def comparisons(identity: str) -> str:
    """The same with gains and verdicts, as JSON; written last."""
    return f"finetune/scores/{identity}.json"
