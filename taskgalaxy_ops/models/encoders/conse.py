"""ConSE, the encoder that works out of the box: an image classifier and a sentence encoder make one space.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (2013): an image's embedding is the
average of the text embeddings of its likeliest class names, weighted by their probabilities. The classifier is
EfficientNet-Lite0 (ImageNet's 1,000 classes), the sentence encoder is all-MiniLM-L6-v2, which also embeds texts. ConSE
knows only ImageNet's objects: the embedding of a chart or a page of text is that of the objects that it resembles. Use
``open_clip`` for data that matter.

Each image and each text is computed alone and unpadded, in one thread, so that its embedding depends on nothing but
itself.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders import onnx_graphs, runtimes, weights
from taskgalaxy_ops.models.encoders.base import EncoderOptions, Recipe, Vectors, cores, normalise
from taskgalaxy_ops.models.encoders.pictures import padded, picture

TOP_CLASSES = 10  # T in the paper, whose best value is 10
MAX_TOKENS = 256  # all-MiniLM-L6-v2's training length; the rest of a longer text is ignored
DIM = 384
REVISION = 1  # raise it when preprocessing, averaging or graphs change the vectors

_CROP = 224 / (224 + 32)  # share of the shorter side that the evaluation crop keeps
_SIDE = 256  # pixels of the shorter side of which the crop has as many as the network takes
_LOCK = threading.Lock()

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ImageClassifier:
    """EfficientNet-Lite0 on ImageNet's 1,000 classes. Safe to call from several threads at once."""

    def __init__(self) -> None:
        _require_packages()
        self._session = onnx_graphs.open_session(_classifier_graph())
        self.names: list[str] = list(weights.imagenet_names())

    def probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        """(1000,) float32, with sum 1: the probability of each class of ``names``."""
        return self.probabilities_of(preprocess(image))

    def probabilities_of(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of what ``preprocess`` gave."""
        return self._run(pixels, "probabilities")

    def logits(self, image: Image.Image) -> NDArray[np.float32]:
        """(1000,) float32: the scores before the softmax."""
        return self._run(preprocess(image), "logits")

    def _run(self, pixels: NDArray[np.float32], output: str) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run([output], {"image": pixels})[0][0]
        return result


class SentenceEncoder:
    """all-MiniLM-L6-v2: a text's mean token embedding at length 1. Safe to call from several threads."""

    def __init__(self) -> None:
        _require_packages()
        from tokenizers import Tokenizer

        graph = onnx_graphs.bert_mean_pooled(weights.minilm_arrays())
        self._session = onnx_graphs.open_session(graph)
        self._tokenizer = Tokenizer.from_file(str(weights.minilm_file("tokenizer.json")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, text: str) -> Vectors:
        """(384,) float32 at length 1."""
        ids = np.asarray([self._tokenizer.encode(text).ids], np.int64)
        vector: Vectors = normalise(self._session.run(["mean"], {"ids": ids})[0])[0]
        return vector


class ConseEncoder:
    """The encoder ``conse``; see the module. The networks are shared by all encoders of the process.

    Safe to use from several threads at once, and after a fork.
    """

    dim: int = DIM
    batch: int = 64

    def __init__(self, recipe: Recipe | None = None, *, threads: int | None = None) -> None:
        """threads: how many images or texts are computed at a time; None for one a core.

        Raises EncoderError if a package or its weights are not there.
        """
        self._recipe = recipe or Recipe()
        self._threads = threads or cores()
        self._probabilities_of = _classifying(self._recipe, self._threads)
        self._sentences = sentence_encoder()
        self._class_vectors: dict[int, Vectors] = {}  # by class index; filled when an image needs one
        self._passes = 0
        self._count = threading.Lock()

    @property
    def passes(self) -> int:
        """Images and texts encoded for callers; class names, which belong to the model, are not counted."""
        return self._passes

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See ``Encoder.identity``. A text's shape depends on its own length alone, hence ``tokens``."""
        import onnxruntime

        recipe = {name: value for name, value in self._recipe.fields().items() if value != "device"}
        followed = recipe if self._recipe.runtime == "openvino" else {"decode", "fit"} & recipe.keys()
        return {
            "name": "conse",
            "revision": REVISION,
            "weights": weights.conse_sha256(),
            "backend": "onnxruntime",
            "backend_version": onnxruntime.__version__,
            "dtype": "float32",
            "batch_shape": {
                "images": [1, 3, onnx_graphs.IMAGE_SIDE, onnx_graphs.IMAGE_SIDE],
                "texts": [1, "tokens"],
            },
            "dim": DIM,
            "top_classes": TOP_CLASSES,
            "max_tokens": MAX_TOKENS,
            **{name: recipe[name] for name in followed},
        }

    def prepare(self, raw: bytes) -> NDArray[np.float32]:
        """(1, 3, 224, 224) float32, as ``preprocess``. Raises as ``rendering.upright``."""
        return preprocess(picture(raw, self._recipe, _SIDE), self._recipe.fit)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, 384) float32, L2-normalised: the likeliest classes' name embeddings, weighted and averaged."""
        return self.encode_prepared(self._each(lambda image: preprocess(image, self._recipe.fit), images))

    def encode_prepared(self, images: Sequence[NDArray[np.float32]]) -> Vectors:
        """The same of what ``prepare`` gave."""
        likely = self._each(lambda pixels: likeliest(self._probabilities_of(pixels)), images)
        wanted = {int(c) for classes, _ in likely for c in classes}
        missing = [c for c in sorted(wanted) if c not in self._class_vectors]
        names = weights.imagenet_names()
        self._class_vectors.update(
            zip(missing, self._each(lambda c: self._sentences.encode(names[c]), missing), strict=True)
        )
        self._add_passes(len(images))
        mixed = [self._mix(classes, shares) for classes, shares in likely]
        return normalise(np.stack(mixed)) if mixed else np.zeros((0, DIM), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(m, 384) float32, L2-normalised. Of a text longer than 256 tokens, the first 256 count."""
        vectors = self._each(self._sentences.encode, texts)
        self._add_passes(len(texts))
        return np.stack(vectors) if vectors else np.zeros((0, DIM), np.float32)

    def calibrated(self, images: Sequence[NDArray[np.float32]]) -> bytes:
        """The classifier in int8; see ``CalibratingEncoder``."""
        return runtimes.in_int8(lambda: runtimes.of_onnx(_classifier_graph()), images, transformer=False)

    def _mix(self, classes: NDArray[np.intp], shares: NDArray[np.float32]) -> NDArray[np.float64]:
        """(384,) float64: added up one class after the other, so that the sum's order is always the same."""
        total = np.zeros(DIM, np.float64)
        for index, share in zip(classes.tolist(), shares.tolist(), strict=True):
            total += share * self._class_vectors[index].astype(np.float64)
        return total

    def _each(self, function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
        """``function`` of each item, in order, in threads: ONNX Runtime and Pillow release the interpreter's lock."""
        work = list(items)
        if min(self._threads, len(work)) < 2:
            return [function(item) for item in work]
        with ThreadPoolExecutor(min(self._threads, len(work)), "conse") as pool:
            return list(pool.map(function, work))

    def _add_passes(self, count: int) -> None:
        with self._count:
            self._passes += count


def opened(options: EncoderOptions) -> ConseEncoder:
    """The encoder for the registry. Raises EncoderError where other weights are asked for."""
    if options.model or options.pretrained:
        raise EncoderError(
            "encoder 'conse' has weights of its own: 'model' and 'pretrained' mean nothing to it.\n"
            "  Remove them, or set the encoder's name to 'open_clip'."
        )
    return ConseEncoder(options.recipe, threads=options.threads)


def preprocess(image: Image.Image, fit: str | None = None) -> NDArray[np.float32]:
    """(1, 3, 224, 224) float32, ``(x - 127) / 128``: the middle square, 7/8 of the shorter side, as RGB.

    EfficientNet-Lite is evaluated with this preprocessing (bicubic). Transparent pixels show the colour beneath them.
    fit: ``pad`` takes the whole image, on a grey square.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    small = padded(rgb, onnx_graphs.IMAGE_SIDE) if fit == "pad" else _middle(rgb)
    pixels = (np.asarray(small, np.float32) - 127) / 128
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _middle(rgb: Image.Image) -> Image.Image:
    side = max(1, int(_CROP * min(rgb.size)))
    left, top = (rgb.width - side + 1) // 2, (rgb.height - side + 1) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return square.resize((onnx_graphs.IMAGE_SIDE, onnx_graphs.IMAGE_SIDE), Image.Resampling.BICUBIC)


def _classifier_graph() -> bytes:
    return onnx_graphs.efficientnet_lite0(weights.read_state_dict(weights.efficientnet_file()))


def _classifying(recipe: Recipe, threads: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What gives the classes' probabilities (1000,) of pixels. threads: how many call it at once."""
    if recipe.runtime != "openvino":
        return classifier().probabilities_of
    _require_packages()
    run = runtimes.by_openvino(lambda: runtimes.of_onnx(_classifier_graph()), recipe, "probabilities", threads)
    return lambda pixels: run(pixels)[0]


def likeliest(
    probabilities: NDArray[np.float32], top: int = TOP_CLASSES
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The ``top`` likeliest classes and their probabilities, likeliest first; of equals, the lower class."""
    classes = np.argsort(-probabilities, kind="stable")[:top]
    return classes, probabilities[classes]


_classifier: ImageClassifier | None = None
_sentence_encoder: SentenceEncoder | None = None


def classifier() -> ImageClassifier:
    """The process's one classifier, opened at the first call. Raises EncoderError if packages are missing."""
    global _classifier
    with _LOCK:
        _classifier = _classifier or ImageClassifier()
        return _classifier


def sentence_encoder() -> SentenceEncoder:
    """The process's one sentence encoder, opened at the first call. Raises EncoderError as ``classifier``."""
    global _sentence_encoder
    with _LOCK:
        _sentence_encoder = _sentence_encoder or SentenceEncoder()
        return _sentence_encoder


def _require_packages() -> None:
    try:
        for package in ("onnx", "onnxruntime", "tokenizers"):
            importlib.import_module(package)
    except ImportError as error:
        raise EncoderError(
            f"encoder 'conse' needs {error.name}, which is not installed.\n"
            "  pip install 'taskgalaxy-ops[simulate]' brings it."
        ) from error
