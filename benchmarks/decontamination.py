"""What decontamination finds, and how long it takes: ``python -m benchmarks.decontamination``; ``make bench-release``.

A benchmark of pictures and questions is made, and leaks of it are planted among clean ones (``planted_leaks``); what is
measured is the code by which ``benchmarks add`` and ``release`` compare, with the package's thresholds and its own
encoder. ``SCALE=0.5`` takes half of the pictures and questions; arguments choose figures: pictures, text, seconds.

``decontamination.recall``: of the planted pictures, the share that is found, of the worst of the kinds re-encoded,
resized, recoloured and cropped; ``decontamination.precision``: of all pictures that are found, the share of plants.
Pictures are clip art, drawn documents, shapes, photographs and stamps (Debian's openclipart-png, and
tuxpaint-stamps-default if it is installed); no two of them look the same (``_distinct``), so that fewer are left than
are wanted. All items count, also those whose hash says little (``operations.benchmarks.prints_of``).
``decontamination.text_recall`` and ``text_precision``: the same of questions verbatim, reordered and paraphrased by
rule, among questions of the same forms about other things. Translated ones are in the detail.
``decontamination.seconds``: seconds to search the pictures of a store in a benchmark, by hashes and embeddings, for
each second that the bare products of the same embeddings and their nearest take.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figures import Book, Figure
from benchmarks.planted_leaks import MEASURED, picture_leaks, question_leaks, questions
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.encoders.base import Encoder, open_encoder
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.operations.benchmarks import prints_of
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture, ImagePrints
from taskgalaxy_ops.release.decontaminate.pictures import (
    CROPS,
    LEAST_QUALITY,
    PictureIndex,
    PictureThresholds,
    picture_hash,
)
from taskgalaxy_ops.release.decontaminate.questions import (
    BenchmarkQuestion,
    QuestionIndex,
    QuestionThresholds,
    question_print,
)
from taskgalaxy_ops.release.pdq_table import image_hash
from taskgalaxy_ops.settings import DecontaminateSettings
from taskgalaxy_ops.sources.builtin import _images
from taskgalaxy_ops.sources.pdq import unpacked
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, SIDE, pixels_of

ITEMS, CLEAN = 300, 20_000
QUESTIONS = 2_000
_UNCLEAR = 0.05  # of the images, those whose hash says little
_LOOKS = 1_000  # different thumbnails among these
STORE, BENCHMARK, DIM = 6_000, 60_000, 384  # each image of a store of 400,000 costs as much as one of these
# How many are drawn for each picture that is wanted, many of which look alike; of the other sources, as many as are
# wanted in all, which is more than they have.
DRAWN = {"documents": 1.25, "shapes": 0.25}
TAKEN = ("openclipart", "photos", "stamps")
COUNTED = ("re-encoded", "resized", "recoloured", "cropped")
TEXTS = ("verbatim", "reordered", "paraphrased")
_SIDE, _LEAST = 480, 48  # pixels, of pictures: the longer side at most, the shorter at least
_LARGEST = 4_000_000  # pixels of a file
_PART = 500  # pictures that a process draws at once
_ALIKE = 8.0  # steps of brightness of 256, by which thumbnails of one drawing and its variants differ on average
_SETTINGS = DecontaminateSettings()
PICTURES = PictureThresholds.of(_SETTINGS)
TEXT = QuestionThresholds.of(_SETTINGS)


@cache
def encoder() -> Encoder:
    """The package's encoder."""
    return open_encoder("conse")


def _pool(number: int, seed: int) -> tuple[list[bytes], Counter[str]]:
    """Pictures as PNG, no two alike, in an order drawn by the seed; and how many of each source there are."""
    drawn = [(source, round(number * share)) for source, share in DRAWN.items()]
    jobs = [(source, number, seed) for source in TAKEN]
    jobs += [(source, min(_PART, count - at), seed + at) for source, count in drawn for at in range(0, count, _PART)]
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        found = [
            (raw, source) for (source, *_), made in zip(jobs, workers.map(_prepare, jobs), strict=True) for raw in made
        ]
    Random(seed).shuffle(found)
    sources = dict(found)
    kept = list(_distinct(list(sources)))[:number]
    return kept, Counter(sources[raw] for raw in kept)


def _prepare(job: tuple[str, int, int]) -> list[bytes]:
    """Pictures of a source as PNG, of one size; those that are very large or small are left out."""
    source, limit, seed = job
    found = []
    for raw in islice(_stamps(), limit) if source == "stamps" else (made.raw for made in _images(source, limit, seed)):
        try:
            with Image.open(io.BytesIO(raw)) as image:
                fits = image.width * image.height <= _LARGEST and min(image.size) >= _LEAST
        except Image.DecompressionBombError:
            fits = False
        if fits:
            picture = upright(raw)
            picture.thumbnail((_SIDE, _SIDE))
            out = io.BytesIO()
            picture.save(out, "PNG", compress_level=1)
            found.append(out.getvalue())
    return found


def _stamps() -> Iterator[bytes]:
    """The stamps of Tux Paint, where Debian's package is installed."""
    return (file.read_bytes() for file in sorted(Path("/usr/share/tuxpaint/stamps").rglob("*.png")))


def _distinct(pictures: Sequence[bytes]) -> Iterator[bytes]:
    """Those that look like no earlier one, nor like its mirror image: by the brightness of 24 by 24 pixels."""
    seen = np.empty((2 * len(pictures), 24 * 24), np.float32)
    coarse = np.empty((2 * len(pictures), 6 * 6), np.float32)  # means of blocks: these differ by no more on average
    kept = 0
    for raw in pictures:
        with Image.open(io.BytesIO(raw)) as image:
            small = np.asarray(image.convert("L").resize((24, 24), Image.Resampling.BOX), np.float32)
        blocks = small.reshape(6, 4, 6, 4).mean(axis=(1, 3))
        near = np.flatnonzero(np.abs(coarse[: 2 * kept] - blocks.reshape(-1)).mean(axis=1) < _ALIKE)
        if (np.abs(seen[near] - small.reshape(-1)).mean(axis=1) < _ALIKE).any():
            continue
        seen[2 * kept], seen[2 * kept + 1] = small.reshape(-1), small[:, ::-1].reshape(-1)
        coarse[2 * kept], coarse[2 * kept + 1] = blocks.reshape(-1), blocks[:, ::-1].reshape(-1)
        kept += 1
        yield raw


def _prints(raws: Sequence[bytes]) -> ImagePrints:
    names = [picture_hash(sha256_hex(raw)) for raw in raws]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda name, raw: image_hash(name, upright(raw)), names, raws))
    return ImagePrints(
        images=names,
        pictures=names,
        pdq=unpacked([each.pdq for each in looks]),
        quality=np.array([each.quality for each in looks], np.int64),
        brightness=pixels_of([each.brightness for each in looks], (BRIGHTNESS_SIDE, BRIGHTNESS_SIDE)),
        colours=pixels_of([each.thumbnail for each in looks], (SIDE, SIDE, 3)),
        vectors=np.concatenate([vectors for _, vectors in encode_files(encoder(), raws, lambda raw: raw)]),
    )


def pictures(book: Book, scale: float) -> None:
    """decontamination.recall, decontamination.precision."""
    items, clean = round(ITEMS * scale), round(CLEAN * scale)
    pool, sources = _pool(items + clean, MEASURED[0])
    theirs, others = pool[:items], pool[items:]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        prints = list(threads.map(lambda raw: prints_of(upright(raw)), theirs))
    names = [picture_hash(sha256_hex(raw)) for raw in theirs]
    rows = [BenchmarkPicture(item=f"{n}", picture=names[n], **each._asdict()) for n, each in enumerate(prints)]
    embedded = np.concatenate([vectors for _, vectors in encode_files(encoder(), theirs, lambda raw: raw)])
    index = PictureIndex(rows, dict(zip(names, embedded, strict=True)))
    leaks = [picture_leaks(raw, (MEASURED[0], n)) for n, raw in enumerate(theirs)]
    planted = [(kind, n, raw) for n, ways in enumerate(leaks) for kind, raw in ways.items()]
    found = {each.image: each for each in index.search(_prints([raw for *_, raw in planted]), PICTURES)}
    shares = {
        kind: sum(n in found for n, (other, *_) in enumerate(planted) if other == kind) / len(theirs)
        for kind in dict.fromkeys(kind for kind, *_ in planted)
    }
    right = sum(each.item == str(planted[n][1]) for n, each in found.items())
    wrong = list(index.search(_prints(others), PICTURES))
    counted = sum(planted[n][0] in COUNTED for n in found)
    detail = {
        "items": len(theirs),
        "of_unsteady_hash": sum(each.quality < LEAST_QUALITY for each in prints),
        "clean": len(others),
        "by_kind": {kind: round(share, 4) for kind, share in shares.items()},
        "of_the_right_item": round(right / max(1, len(found)), 4),
        "of_sources": dict(sources),
    }
    book.add(Figure("decontamination.recall", min(shares[kind] for kind in COUNTED), 0.98, "higher", detail))
    how = {"wrong": len(wrong), "wrong_kinds": dict(Counter(each.kind for each in wrong)), "found": counted}
    precision = counted / max(1, counted + len(wrong))
    book.add(Figure("decontamination.precision", precision, 0.99, "higher", {"clean": len(others), **how}))


def text(book: Book, scale: float) -> None:
    """decontamination.text_recall, decontamination.text_precision."""
    number, seed = round(QUESTIONS * scale), MEASURED[0]
    items = questions(number, f"items {seed}")
    asked = {question for question, _ in items}
    clean = [question for question, _ in questions(2 * number, f"clean {seed}") if question not in asked]
    rows = [BenchmarkQuestion(f"{n}", *question_print(question)) for n, (question, _) in enumerate(items)]
    vectors = encoder().encode_texts([question for question, _ in items])
    index = QuestionIndex(rows, {row.ordered: vector for row, vector in zip(rows, vectors, strict=True)})
    planted = [
        (kind, n, leak) for n, item in enumerate(items) for kind, leak in question_leaks(*item, (seed, n)).items()
    ]
    texts = [*(leak for *_, leak in planted), *clean]
    began = time.monotonic()
    found = list(index.search(texts, list(map(question_print, texts)), encoder().encode_texts, TEXT))
    seconds = time.monotonic() - began
    hits = Counter(planted[each.question][0] if each.question < len(planted) else "clean" for each in found)
    counted = sum(hits[kind] for kind in TEXTS)
    detail = {
        "items": number,
        "by_kind": {kind: round(hits[kind] / number, 4) for kind in (*TEXTS, "translated")},
        "seconds": round(seconds, 2),
    }
    book.add(Figure("decontamination.text_recall", counted / (len(TEXTS) * number), 0.95, "higher", detail))
    how = {"clean": len(clean), "wrong": hits["clean"], "found": counted}
    book.add(Figure("decontamination.text_precision", counted / (counted + hits["clean"]), 0.98, "higher", how))


def seconds(book: Book, scale: float) -> None:
    """decontamination.seconds: vectors and hashes are drawn, a hundredth of the store's equal an item's."""
    random = np.random.default_rng(MEASURED[0])
    store, benchmark = round(STORE * scale), round(BENCHMARK * scale)
    theirs, ours = _unit(random, benchmark), _unit(random, store)
    leaked = random.integers(0, benchmark, store // 100)
    ours[: len(leaked)] = theirs[leaked]
    hashes = random.integers(0, 256, (benchmark, len(CROPS) + 2, 32), np.uint8)
    own = random.integers(0, 256, (store, 32), np.uint8)
    own[: len(leaked)] = hashes[leaked, 0]
    own[len(leaked) :, 16:] = ~own[len(leaked) :, :16]  # half of the bits are set, as of every picture's PDQ
    quality = np.where(random.random(store) < _UNCLEAR, 0, 100)
    grey = random.integers(0, 256, (_LOOKS, BRIGHTNESS_SIDE, BRIGHTNESS_SIDE), np.uint8)
    colours = random.integers(0, 256, (_LOOKS, SIDE, SIDE, 3), np.uint8)
    looks = [(_doubled(grey[n]), _doubled(colours[n])) for n in range(_LOOKS)]
    rows = [
        BenchmarkPicture(
            item=f"{n}",
            picture=f"{n}",
            quality=100,
            prints=tuple(each.tobytes().hex() for each in hashes[n]),
            brightness=looks[n % _LOOKS][0],
            colours=looks[n % _LOOKS][1],
        )
        for n in range(benchmark)
    ]
    seen = random.integers(0, _LOOKS, store)
    seen[: len(leaked)] = leaked % _LOOKS
    index = PictureIndex(rows, {f"{n}": vector for n, vector in enumerate(theirs)})
    names = [f"x{n}" for n in range(store)]
    prints = ImagePrints(
        images=names,
        pictures=names,
        pdq=own,
        quality=quality,
        vectors=ours,
        brightness=grey[seen],
        colours=colours[seen],
    )
    bare: list[float] = []
    whole: list[float] = []
    for _ in range(3):  # in turns, so that a machine that slows down slows both
        bare.append(_timed(lambda: _bare(ours, theirs)))
        whole.append(_timed(lambda: len(list(index.search(prints, PICTURES)))))
    found = len(list(index.search(prints, PICTURES)))
    detail = {"images": store, "items": benchmark, "dim": DIM, "found": found, "bare": min(bare), "search": min(whole)}
    book.add(Figure("decontamination.seconds", min(whole) / min(bare), 2, "lower", detail))


def _doubled(thumbnail: NDArray[np.uint8]) -> str:
    """The thumbnail of an item, which has twice as many pixels a side."""
    return base64.b64encode(thumbnail.repeat(2, axis=0).repeat(2, axis=1).tobytes()).decode()


def _unit(random: np.random.Generator, number: int) -> NDArray[np.float32]:
    """Vectors around twenty centres, so that each is near many others, as pictures of one kind are."""
    centres = np.random.default_rng(0).normal(size=(20, DIM))
    rows = (1.2 * centres[random.integers(0, 20, number)] + random.normal(size=(number, DIM))).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _bare(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """The nearest item of each image, as faiss's flat index computes it: products of blocks, and their greatest."""
    for start in range(0, len(ours), 512):
        (ours[start : start + 512] @ theirs.T).argmax(axis=1)


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main(figures: Sequence[str]) -> None:
    """Measure the figures named, or all."""
    book, scale = Book("release"), float(os.environ.get("SCALE", "1"))
    for measure in (text, seconds, pictures):
        if not figures or measure.__name__ in figures:
            measure(book, scale)


if __name__ == "__main__":
    main(sys.argv[1:])
