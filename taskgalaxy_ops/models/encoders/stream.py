"""Encodes image files as a stream: the next ones are read, decoded and prepared while a batch is encoded."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

from taskgalaxy_ops.models.encoders.base import Encoder, PreparingEncoder, Vectors, cores
from taskgalaxy_ops.models.rendering import upright

Item = TypeVar("Item")

_BATCH = 64  # decoded images in memory at a time, of an encoder that takes them whole
_AHEAD = 2  # batches that are prepared, or about to be, while one is encoded


def encode_files(
    encoder: Encoder, items: Iterable[Item], read: Callable[[Item], bytes]
) -> Iterator[tuple[list[Item], Vectors]]:
    """The vectors (n, dim) of images, a batch at a time, with the items that they belong to, in the order given.

    read: gives an item's image file; with an encoder that prepares, several threads call it at once. ``items`` is read
    in the caller's thread, two batches ahead at most, so that memory stays the same however many there are.

    Raises what ``read``, a decoder or the encoder raises; batches before that were given.
    """
    if isinstance(encoder, PreparingEncoder):
        yield from _prepared(encoder, iter(items), read)
        return
    rest = iter(items)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch, encoder.encode_images([upright(read(item)) for item in batch])


def _prepared(
    encoder: PreparingEncoder, rest: Iterator[Item], read: Callable[[Item], bytes]
) -> Iterator[tuple[list[Item], Vectors]]:
    window: deque[tuple[Item, Future[NDArray[Any]]]] = deque()

    def fill() -> None:
        for item in itertools.islice(rest, encoder.batch * _AHEAD - len(window)):
            window.append((item, pool.submit(lambda each: encoder.prepare(read(each)), item)))

    with ThreadPoolExecutor(cores(), "prepare") as pool:
        try:
            fill()
            while window:
                batch: list[Item] = []
                inputs: list[NDArray[Any]] = []
                while window and len(batch) < encoder.batch:
                    item, future = window.popleft()
                    batch.append(item)
                    inputs.append(future.result())
                fill()
                yield batch, encoder.encode_prepared(inputs)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
