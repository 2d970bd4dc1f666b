"""How an encoder computes best on this machine: each runtime and precision is tried on a few images."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nsmallest

import numpy as np
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.calibrate import LEAST_RECALL, drawn_types, readable, recall
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.encoders.base import (
    CalibratingEncoder,
    EmbeddingMatrix,
    Encoder,
    PreparingEncoder,
    Recipe,
    Vectors,
    cores,
)
from taskgalaxy_ops.models.encoders.runtimes import computes_bf16
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

SECONDS = 60.0  # after which no further way is begun

# Runtime, precision and decoding; float32 first, for the others are compared with it, then the likeliest to be best.
_WAYS = (
    (None, None, None),
    (None, None, "device"),
    ("openvino", "int8", "device"),
    ("openvino", None, "device"),
    ("openvino", "bf16", "device"),
    (None, "bf16", "device"),
    ("onnxruntime", None, "device"),
    (None, None, "quick"),
    ("openvino", "int8", "quick"),
    ("openvino", None, "quick"),
    ("openvino", "bf16", "quick"),
    (None, "bf16", "quick"),
    ("onnxruntime", None, "quick"),
    ("openvino", "int8", None),
    ("openvino", None, None),
    ("openvino", "bf16", None),
    (None, "bf16", None),
    ("onnxruntime", None, None),
)
_IMAGES = 64  # that each way encodes, at most; as many others calibrate int8
_WAY_SECONDS = 3.0  # that float32 takes for these images, about: a slow encoder gets fewer
_TYPES_SECONDS = 10.0  # for task types that are not embedded yet
_TYPES_AT_ONCE = 32
_FASTER = 1.1  # times as many images a second, from which a change is recommended


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One way, measured."""

    runtime: str | None
    precision: str | None
    decode: str | None
    forward: float | None  # images a second by the network alone; None: the encoder does not tell it apart
    whole: float  # images a second with reading, decoding and preparing, as a run does it
    recall: float | None  # of the 10 nearest task types of float32 with full decoding; None: the store has no image
    settings: bool  # whether the settings choose it

    @property
    def same_types(self) -> bool:
        """Whether it is known to find what float32 finds; without recall, only where it computes the same."""
        if self.recall is None:
            return self.precision is None and self.decode is None
        return self.recall >= LEAST_RECALL


@dataclass(slots=True, kw_only=True)
class EncoderTrials:
    """All ways, measured or why not."""

    encoder: str
    cores: int
    images: int  # that each way encoded
    stored: int  # images of the store; none: pictures were made
    task_types: int  # among which recall is counted
    trials: list[Trial] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # by way: why it was not tried

    @property
    def today(self) -> Trial | None:
        """The settings' own way; None where it was not tried."""
        return next((each for each in self.trials if each.settings), None)

    @property
    def best(self) -> Trial:
        """The quickest way that finds the same task types; the settings' own where no other is clearly quicker."""
        quickest = max((each for each in self.trials if each.same_types), key=lambda each: each.whole)
        keep = self.today is not None and self.today.same_types and quickest.whole < _FASTER * self.today.whole
        return self.today if keep and self.today else quickest


def encoder_trials(workspace: Workspace, progress: Progress | None = None, seconds: float = SECONDS) -> EncoderTrials:
    """Try each way of the settings' encoder on images of the store, or on pictures made for it. Writes nothing.

    seconds: after so many no further way is begun. Raises EncoderError where the encoder cannot be opened at all.
    """
    progress, until = progress or Silent(), time.monotonic() + seconds
    chosen = workspace.settings.encoder
    bench = _Bench(workspace.snapshot())
    found = EncoderTrials(
        encoder=" ".join(filter(None, (chosen.name, chosen.model, chosen.pretrained))),
        cores=cores(),
        images=len(bench.files),
        stored=bench.stored,
        task_types=len(bench.types.ids),
    )
    progress.stage("encoder", len(_WAYS), "ways")
    exact: Vectors | None = None
    for runtime, precision, decode in _WAYS:
        try:
            if exact is not None and time.monotonic() > until:
                raise EncoderError(f"the {seconds:.0f} seconds were over")
            forward, whole, vectors = bench.tried(Recipe(runtime, precision, decode, chosen.fit))
        except EncoderError as error:
            found.missing[" ".join(filter(None, (runtime, precision, decode))) or "float32"] = str(error)
        else:
            exact = vectors if exact is None else exact
            found.trials.append(
                Trial(
                    runtime=runtime,
                    precision=precision,
                    decode=decode,
                    forward=forward,
                    whole=whole,
                    recall=recall(exact, vectors, bench.types) if bench.types.ids else None,
                    settings=(runtime, precision, decode) == (chosen.runtime, chosen.precision, chosen.decode),
                )
            )
        progress.advance("encoder")
    return found


class _Bench:
    """What all ways share: images, task types, and the network in int8."""

    def __init__(self, look: Workspace) -> None:
        self._look = look
        self._exact = look.open_encoder(Recipe(fit=look.settings.encoder.fit))
        denied = look.registry.denied()
        ids = {image for shard in lanes.shards_of(look, None) for image in look.registry.image_ids(shard)} - denied
        self.stored = len(ids)
        drawn = nsmallest(2 * _IMAGES, ids, key=lambda image: draw("encoder trial", image))
        files = list(readable(look, drawn)) or _made(_IMAGES)
        self.files = files[: self._affordable(files)]
        self._others = files[-_IMAGES:]  # with few images the same ones: they calibrate int8

    def _affordable(self, files: Sequence[bytes]) -> int:
        some = files[:8]
        began = time.monotonic()
        _encode(self._exact, some)
        return max(8, min(_IMAGES, int(_WAY_SECONDS * len(some) / (time.monotonic() - began))))

    @cached_property
    def types(self) -> EmbeddingMatrix:
        """Task types of the store, as many as are embedded or can be soon; none where it has no image."""
        plain = self._look.settings.encoder.model_copy(update={"runtime": None, "precision": None})
        look, drawn = self._look.with_settings(encoder=plain), drawn_types(self._look) if self.stored else []
        look.__dict__.setdefault("encoder", self._exact)
        until, count = time.monotonic() + _TYPES_SECONDS, 0
        types = EmbeddingMatrix((), np.empty((0, 0), np.float32))
        while count < len(drawn) and time.monotonic() < until:
            count += _TYPES_AT_ONCE
            types = TaxonomyStore(look).embed_labels(drawn[:count], keep=False)
        return types

    @cached_property
    def _network(self) -> bytes:
        if not isinstance(self._exact, CalibratingEncoder):
            raise EncoderError(f"encoder {self._look.settings.encoder.name!r} has no int8")
        return self._exact.calibrated([self._exact.prepare(raw) for raw in self._others])

    def tried(self, recipe: Recipe) -> tuple[float | None, float, Vectors]:
        """Images a second by the network alone and as a run does it, and the vectors. Raises EncoderError."""
        if recipe.precision == "bf16" and not computes_bf16():
            raise EncoderError("this processor does not compute in bf16 (lscpu names neither avx512_bf16 nor amx_bf16)")
        network = self._network if recipe.precision == "int8" else None
        encoder = self._look.open_encoder(Recipe(recipe.runtime, recipe.precision, recipe.decode, recipe.fit, network))
        forward = None
        if isinstance(encoder, PreparingEncoder):
            prepared = [encoder.prepare(raw) for raw in self.files[: encoder.batch]]
            encoder.encode_prepared(prepared)  # the first time takes longer
            began = time.monotonic()
            encoder.encode_prepared(prepared)
            forward = len(prepared) / (time.monotonic() - began)
        began = time.monotonic()
        vectors = _encode(encoder, self.files)
        return forward, len(self.files) / (time.monotonic() - began), vectors


def _encode(encoder: Encoder, files: Sequence[bytes]) -> Vectors:
    return np.concatenate([vectors for _, vectors in encode_files(encoder, files, lambda raw: raw)])


def _made(count: int) -> list[bytes]:
    """JPEG files of about a megapixel: coloured patches under grain."""
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        patches = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((1152, 896))
        grain = rng.integers(-12, 13, (896, 1152, 3), np.int16)
        out = io.BytesIO()
        Image.fromarray((np.asarray(patches, np.int16) + grain).clip(0, 255).astype(np.uint8)).save(out, "JPEG")
        files.append(out.getvalue())
    return files
