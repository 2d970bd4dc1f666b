"""Every key of the store, in one place. docs/store-format.md is the written form of this module.

In keys, ``homes/`` holds image shards; stores of every version spell it so. No name that a user or a model chose is
ever part of a key: the names of sources, files and labels lie inside the objects.
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
HEALTH = "health/"  # models that serve nothing at the moment
RENDERED = "rendered/"  # images as models were sent them by URL

LATEST = f"{RELEASES}latest.json"

SETTINGS_LOG = "settings"
REGISTRY_LOG = "registry"
BUDGET_LOG = "budget"
FORECASTS_LOG = "forecasts"
COVERAGE_LOG = "coverage"
JUDGES_LOG = "judges"
VERSIONS_LOG = "taxonomy/versions"
RELEASES_LOG = f"{RELEASES}log"
EDITS_LOG = "edits"
PROPOSALS_LOG = "taxonomy/proposals"
WEAKNESSES_LOG = "taxonomy/weaknesses"  # what the scores of a fine-tuned model say of the branches
BENCHMARKS_LOG = "benchmarks"  # whose items a release is not to hold
REVIEWS_LOG = "reviews"  # people's votes on question-answer pairs
REFUSED_LOG = "taxonomy/refused"  # branches that a person does not want to see proposed again
ANNOUNCEMENTS_LOG = "announcements"
FINETUNE_LOG = "finetune/log"

TAXONOMY_SHARD = "taxonomy"


def blob(image: str) -> str:
    """An image's bytes, as the source's file held them."""
    return f"{BLOBS}{image[:2]}/{image}"


def renderings(image: str) -> str:
    """Prefix of an image's renderings, which models read by URL."""
    return f"{RENDERED}{image[:2]}/{image}/"


def rendering(image: str, how: str) -> str:
    """One rendering of an image, a JPEG; ``how`` is the hash of its parameters. It may be deleted and made again."""
    return f"{renderings(image)}{how}.jpg"


def data(rows_hash: str, nonce: str) -> str:
    """A Parquet object, named by the hash of its canonical rows and its writer's nonce."""
    return f"{DATA}{rows_hash[:2]}/{rows_hash}-{nonce}.parquet"


def marker(shard: str, stage: str, key: str, output: str) -> str:
    """The marker of a stage output. Its name alone tells a later run the fingerprint of what came out (``output``)."""
    return f"{markers(shard)}{stage}.{key}.{output}.json"


def markers(shard: str) -> str:
    """Prefix of all markers of an image shard."""
    return f"{IMAGE_SHARDS}{shard}/markers/"


def journal(shard: str) -> str:
    """Log of the replies that were paid for, about one image shard."""
    return f"{IMAGE_SHARDS}{shard}/journal"


def tally(shard: str) -> str:
    """The sums of an image shard's journal. Made from the journal, and replaced at any time."""
    return f"{IMAGE_SHARDS}{shard}/tally.json"


def lease(shard: str) -> str:
    """Log of the leases on an image shard."""
    return f"{IMAGE_SHARDS}{shard}/lease"


def worker(group: str, worker: str) -> str:
    """A worker's sign of life for one rate limit. ``group``: the hash of what models under that limit share."""
    return f"{WORKERS}{group}/{worker}"


def form(group: str) -> str:
    """The form of structured output that a model was found to take; ``group`` as in ``worker``."""
    return f"{FORMS}{group}"


def health(group: str) -> str:
    """Since when a model has served nothing; ``group`` as in ``worker``. It is there only while that lasts."""
    return f"{HEALTH}{group}.json"


def encoder(settings_hash: str) -> str:
    """The identity of the encoder that a setting named when the store first used it."""
    return f"{EMBEDDINGS}{settings_hash}.json"


def encoder_network(settings_hash: str) -> str:
    """The calibrated network of an encoder whose precision is int8."""
    return f"{EMBEDDINGS}{settings_hash}.int8.zip"


def type_embeddings(encoder: str) -> str:
    """Log of the task types' embeddings under one encoder."""
    return f"{EMBEDDINGS}{encoder}/types"


def report(name: str) -> str:
    """A page for people; nothing is computed from it. ``name``: a fixed word of this package, or a hash."""
    return f"{REPORTS}{name}.html"


def cache(name: str) -> str:
    """A cache of what was read from many objects. It may be deleted: the next reader reads the objects again."""
    return f"{CACHES}{name}"


def release(version: int) -> str:
    """Prefix of a release's files."""
    return f"{NUMBERED_RELEASES}{version:06d}/"


def scores(identity: str) -> str:
    """Scores of checkpoints, as Parquet; ``identity``: a fingerprint of what was scored."""
    return f"finetune/scores/{identity}.parquet"


def comparisons(identity: str) -> str:
    """The same scores with gains and verdicts, as JSON; written last."""
    return f"finetune/scores/{identity}.json"
