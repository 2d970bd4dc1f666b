"""Pictures, and what a source lists and reads, for tests of the kinds of sources."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import MemoryStore
from PIL import Image as Pillow
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops.errors import UnreadableError
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.listing import source_files
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.workspace import Workspace


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A small image file, another for each seed below 16 million."""
    out = io.BytesIO()
    Pillow.new("RGB", (40, 40), (seed % 256, seed // 256 % 256, seed // 65536)).save(out, kind)
    return out.getvalue()


@dataclass
class Seen:
    """What a source holds: files by name, why others cannot be read, what was left out."""

    files: dict[str, bytes]
    broken: dict[str, str]
    left_out: dict[str, int]
    order: list[str]  # in which the files are read
    versions: dict[str, str]
    context: dict[str, dict[str, str]]  # of files that have one


def seen(location: str, s3_options: Mapping[str, Any] | None = None, **settings: Any) -> Seen:
    """List a source and read each of its files."""
    found = Seen({}, {}, {}, [], {}, {})
    with source_files("mine", SourceSettings(location=location, **settings), s3_options or {}) as listing:
        listing.look()
        for file in listing:
            found.order.append(file.name)
            if file.context:
                found.context[file.name] = json.loads(file.context)
            try:
                found.files[file.name] = file.read()
            except UnreadableError as error:
                found.broken[file.name] = error.why
        found.left_out = listing.left_out
        found.versions = {each.file: each.version for each in listing.versions()}
    return found


def workspace_at(location: str, store: Store | None = None, **source: Any) -> Workspace:
    """A workspace with one source, called "mine"."""
    settings = tiny_settings(Path("unused"), sources={"mine": {"location": location, **source}})
    return tiny_workspace(settings, store or MemoryStore())


def files_of(workspace: Workspace) -> dict[str, str]:
    """The registered images of all sources by file: name within the source, and the image's id."""
    return {claim.file: claim.image for claim in workspace.registry.claims()}
