"""The sides that ``benchmarks.matching`` compares: the published way, a DataLoader, and the library's own stages.

All use one open_clip network with seeded random weights, and one set of random unit vectors as the task types': speed
depends on neither.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.material import task_types
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.match_run import match_shards
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix, Encoder, EncoderOptions, Recipe, Vectors, normalise
from taskgalaxy_ops.models.encoders.conse import ConseEncoder
from taskgalaxy_ops.models.encoders.open_clip import OpenClipEncoder
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

MODEL = "ViT-B-32"
K = 10
SIDES = (1152, 896)  # pixels: about a megapixel

Found = dict[str, list[tuple[str, float]]]  # by image file: the nearest task types with their similarities


def photographs(folder: Path, count: int, distinct: int = 300) -> None:
    """JPEG files of about a megapixel, coloured patches under grain; the same ones each time. Of more than
    ``distinct``, the pixels repeat, and a trailing number makes the files differ."""
    folder.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(0).integers(-12, 13, (*SIDES[::-1], 3), np.int16)
    for number in range(count):
        if number >= distinct:
            raw = (folder / f"{number % distinct:05d}.jpg").read_bytes() + number.to_bytes(4, "big")
            (folder / f"{number:05d}.jpg").write_bytes(raw)
            continue
        patches = Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8))
        smooth = np.asarray(patches.resize(SIDES, Image.Resampling.BICUBIC), np.int16)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=85)


def weights(folder: Path, model: str = MODEL) -> Path:
    """A checkpoint of the network with seeded random weights."""
    import open_clip
    import torch

    file = folder / "random.pt"
    if not file.exists():
        torch.manual_seed(0)
        torch.save(open_clip.create_model(model).state_dict(), file)
    return file


def type_vectors(paths: Sequence[str], dim: int) -> Vectors:
    """Random unit vectors, (m, dim), each by its path."""
    return normalise(np.stack([np.random.default_rng(zlib.crc32(p.encode())).standard_normal(dim) for p in paths]))


class Clip(OpenClipEncoder):
    """The library's encoder with task types at random, as encoding 19,227 takes longer than the benchmark."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return type_vectors(texts, self.dim)


class Conse(ConseEncoder):
    """The default encoder, with task types at random as above."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return type_vectors(texts, self.dim)


def clip(file: Path, recipe: Recipe) -> Clip:
    """The library's encoder by a recipe, 32 images at a time, as a run opens it."""
    return Clip(EncoderOptions(model=MODEL, pretrained=str(file), recipe=recipe, device="cpu"))


def using(workspace: Workspace, encoder: Encoder) -> Workspace:
    """The same store with this encoder, and not the settings'."""
    opened = Workspace(workspace.settings, workspace.store, workspace.run)
    opened.__dict__.update(encoder=encoder, encoder_identity=dict(encoder.identity))
    TaxonomyStore(opened).embeddings()  # encoded once, as in any run but the first
    return opened


def prepare_store(workspace: Workspace, count: int) -> None:
    """Register the images, and publish ``count`` task types."""
    pipeline.ingest(workspace, "images")
    TaxonomyStore(workspace).publish(None, add_types((), task_types(0, count)), [], "hand")


def product(workspace: Workspace, shards: Sequence[ImageShard], files: Mapping[str, str]) -> Found:
    """The library's own embed and match."""
    nothing: dict[str, Any] = {shard.id: {} for shard in shards}
    outputs = match_shards(workspace, shards, nothing)
    found: Found = {}
    for output in outputs.values():
        for each in workspace.stage_outputs.load(output, "matches", Match):
            found.setdefault(files[each.image], []).append((each.task_type, each.similarity))
    return found


def reference(
    encoder: OpenClipEncoder, files: Sequence[Path], types: EmbeddingMatrix, exact: dict[str, Vectors]
) -> Found:
    """The published way: one image at a time in float32, by Pillow, with a product and a top-k an image.

    exact: is given each image's vector, (dim,), by file.
    """
    import torch

    network, matrix = encoder.towers.whole, torch.from_numpy(types.vectors)
    found: Found = {}
    with torch.inference_mode():
        for file in files:
            pixels = encoder.towers.preprocess(Image.open(file).convert("RGB")).unsqueeze(0)
            features = network.encode_image(pixels)
            features = features / features.norm(dim=-1, keepdim=True)
            values, places = (features @ matrix.T)[0].topk(K)
            exact[file.name] = features[0].numpy()
            found[file.name] = [
                (types.ids[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)
            ]
    return found


class Files:
    """Images by number, prepared: what a user's data set is."""

    def __init__(self, files: Sequence[Path], preprocess: Any) -> None:
        self._files = files
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Any:
        return self._preprocess(Image.open(self._files[number]).convert("RGB"))


def dataloader(encoder: OpenClipEncoder, files: Sequence[Path], types: EmbeddingMatrix) -> Found:
    """What a user would write: a DataLoader with two workers, 64 images at a time, in float32."""
    import torch

    matrix, at = torch.from_numpy(types.vectors), itertools.count()
    found: Found = {}
    images: Any = Files(files, encoder.towers.preprocess)
    loader: Any = torch.utils.data.DataLoader(images, batch_size=64, num_workers=2)
    with torch.inference_mode():
        for pixels in loader:
            features = encoder.towers.whole.encode_image(pixels)
            values, places = (features / features.norm(dim=-1, keepdim=True) @ matrix.T).topk(K)
            for row, similarities in zip(places.tolist(), values.tolist(), strict=True):
                named = [(types.ids[place], value) for place, value in zip(row, similarities, strict=True)]
                found[files[next(at)].name] = named
    return found


def recall(found: Found, exact: Mapping[str, Vectors], types: EmbeddingMatrix) -> float:
    """The share of what was found that is in the exact top-k, or as similar as its last up to 1e-3."""
    column = {path: at for at, path in enumerate(types.ids)}
    hits = []
    for image, vector in exact.items():
        similarity = types.vectors @ vector
        least = np.sort(similarity)[-K] - 1e-3
        hits += [similarity[column[path]] >= least for path, _ in found[image]]
    return float(np.mean(hits))
