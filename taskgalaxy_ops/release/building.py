"""From a plan to files, one at a time: the formats, the images, the card, the history, and the manifest last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from taskgalaxy_ops.canonical import fingerprint, sha256_hex
from taskgalaxy_ops.release.card import card
from taskgalaxy_ops.release.images import image_files, thumbnail_files
from taskgalaxy_ops.release.planning import RELEASE_VERSION, Plan
from taskgalaxy_ops.release.tables import llava_files, parquet_files

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
README = "README.md"
HISTORY = "history.json"


def build(plan: Plan, *, version: int, history: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """A release's files: relative path and bytes, each made when it is asked for; ``manifest.json`` is the last.

    version, history: what is no content, such as times and numbers of versions. It goes to ``history.json``, the one
    file that the same plan may give other bytes for, and so not in the manifest. Raises DamageError where an image's
    bytes are not those of its id.
    """
    files: dict[str, dict[str, Any]] = {}
    for path, raw in chain(llava_files(plan), parquet_files(plan), image_files(plan), thumbnail_files(plan)):
        files[path] = entry(raw)
        yield path, raw
    readme = card(plan)
    files[README] = entry(readme)
    yield README, readme
    yield HISTORY, as_json({**_history(plan), **history, "version": version})
    yield MANIFEST, as_json(_manifest(plan, files))


def _history(plan: Plan) -> dict[str, Any]:
    material = plan.material
    return {
        "taxonomy_version": material.taxonomy.version,
        "settings_hash": material.settings_hash,
        "usage": dict(material.usage),
    }


def _manifest(plan: Plan, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "code": RELEASE_VERSION,
        "content_hash": plan.content_hash,
        "simulated": plan.material.simulated,
        "partial": plan.material.partial,
        "pending": plan.material.pending,
        "counts": plan.counts,
        "made_with": {**plan.made_with, "fingerprint": fingerprint("release.made_with", plan.made_with)},
        "files": files,
    }


def entry(raw: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"size": len(raw), "sha256": sha256_hex(raw)}


def as_json(value: Mapping[str, Any]) -> bytes:
    """A JSON file of a release, a value a line."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
