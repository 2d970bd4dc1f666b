"""Which images of a store are rendered otherwise than version 1 of the rendering did, and how: thin ones, deep grey.

These alone have parameters of their own in the keys of what is asked about them. Width, height and levels stand in the
image shards' tables. Image shards of older versions lack the levels; for them the files that may hold deep grey are
looked at once. What was found is kept in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.opening import PNG
from taskgalaxy_ops.models.rendering import Shown, shown
from taskgalaxy_ops.records import Image, ImageId
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.id_index import lookup
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace

Apart = Mapping[str, Mapping[ImageId, Shown]]  # by image shard, of the images that may be rendered otherwise

_NAME_HEX = 16
_SCHEMA = pa.schema([("image", pa.string()), ("width", pa.int64()), ("height", pa.int64()), ("levels", pa.string())])
# Formats that Pillow never decodes to deep grey; all others are looked at.
_SHALLOW = frozenset(
    {"jpeg", "mpo", "webp", "gif", "bmp", "dib", "avif", "heif", "ico", "cur", "tga", "pcx", "xbm", "xpm", "qoi", "psd"}
)
_FEW = 32  # images of a store for which a cache is not worth an object
_PHASH_HEX = 40
_PNG_HEAD = 26  # bytes, up to the colour type
_GREY_16 = bytes([16, 0])  # bit depth and colour type of a PNG that is deep grey


def images_apart(workspace: Workspace, models: Sequence[Model]) -> Apart:
    """The images that at least one of these models is shown otherwise than version 1 of the rendering did."""
    sizes = sorted({(model.image_side, model.image_min_side) for model in models})
    name = f"pictures-{fingerprint('pictures', sizes)[:_NAME_HEX]}"
    shards = {f"{shard.id}.{shard.images.rows_hash[:_NAME_HEX]}": shard for shard in workspace.registry.shards()}
    found: dict[str, dict[ImageId, Shown]] = {}
    if sum(shard.images.rows for shard in shards.values()) <= _FEW:
        parts = [(shard.id, row) for shard in shards.values() for row in _read(workspace, shard, models).to_pylist()]
    else:
        readers = {named: lambda shard=shard: _read(workspace, shard, models) for named, shard in shards.items()}
        rows = lookup(workspace.store, name, _SCHEMA, readers).to_pylist()
        parts = [(shards[row["shard"]].id, row) for row in rows]
    for shard_id, row in parts:
        found.setdefault(shard_id, {})[row["image"]] = Shown(row["width"], row["height"], row["levels"])
    return found


def _read(workspace: Workspace, shard: ImageShard, models: Sequence[Model]) -> pa.Table:
    table = workspace.stage_outputs.columns(shard.images, Image)
    rows: Iterator[tuple[str, int, int, str, str, str | None]] = zip(
        *(table[name].to_pylist() for name in ("image", "width", "height", "format", "phash", "levels")), strict=True
    )
    kept = []
    for image, width, height, kind, phash, levels in rows:
        if not shard.levels and kind not in _SHALLOW and may_be_grey(phash):
            levels = _levels(workspace.store, image, kind)
        if any(Shown(width, height, levels).apart(model) for model in models):
            kept.append({"image": image, "width": width, "height": height, "levels": levels})
    return pa.Table.from_pylist(kept, schema=_SCHEMA)


def may_be_grey(phash: str) -> bool:
    """Whether an image may be grey, by the colours in its perceptual hash: 4 by 4 cells of two bits a channel."""
    if len(phash) != _PHASH_HEX:
        return True
    colours = int(phash, 16) & ((1 << 96) - 1)
    cells = [colours >> (6 * cell) & 0b111111 for cell in range(16)]
    return all(cell >> 4 == cell >> 2 & 0b11 == cell & 0b11 for cell in cells)


def _levels(store: Store, image: ImageId, kind: str) -> str | None:
    """The levels of an image that an older version registered, from its file."""
    try:
        if kind == "png" and not _is_grey_16(store.get(keys.blob(image), length=_PNG_HEAD)):
            return None
        return shown(store.get(keys.blob(image))).levels
    except NotFoundError:  # `verify` says so; nothing can be asked about it either
        return None
    except Exception:  # noqa: BLE001 - a newer decoder refuses what an older one took
        return None


def _is_grey_16(head: bytes) -> bool:
    return not head.startswith(PNG) or head[24:26] == _GREY_16


def of_model(apart: Apart, model: Model) -> dict[ImageId, dict[str, Any]]:
    """The parameters of these images' renderings for a model."""
    images = {image: found for of_shard in apart.values() for image, found in of_shard.items()}
    return {image: how for image, found in images.items() if (how := found.apart(model))}
