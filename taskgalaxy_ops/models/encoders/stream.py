"""Encodes image files as a stream: the next ones are read, decoded and prepared while a batch is encoded."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from numpy.typing import NDArray

from taskgalaxy_ops.models.encoders.base import DeviceEncoder, Encoder, PreparingEncoder, Vectors, cores
from taskgalaxy_ops.models.opening import register_heif
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
    under_way: deque[tuple[list[Item], Future[Vectors]]] = deque()
    lanes = encoder.lanes if isinstance(encoder, DeviceEncoder) else 1

    def fill() -> None:
        for item in itertools.islice(rest, encoder.batch * (_AHEAD + lanes - 1) - len(window)):
            window.append((item, pool.submit(lambda each: prepare(read(each)), item)))

    with ExitStack() as stack:
        prepare, threads = _preparing(encoder, stack)
        pool = stack.enter_context(ThreadPoolExecutor(threads, "prepare"))
        encoding = stack.enter_context(ThreadPoolExecutor(lanes, "encode"))
        try:
            fill()
            while window or under_way:
                while window and len(under_way) < lanes:
                    batch, inputs = _next_batch(window, encoder.batch)
                    fill()
                    under_way.append((batch, encoding.submit(encoder.encode_prepared, inputs)))
                batch, vectors = under_way.popleft()
                yield batch, vectors.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _next_batch(window: deque[tuple[Item, Future[NDArray[Any]]]], most: int) -> tuple[list[Item], list[NDArray[Any]]]:
    """The next images with what was prepared of them. Raises what a decoder raised."""
    items: list[Item] = []
    inputs: list[NDArray[Any]] = []
    while window and len(items) < most:
        item, future = window.popleft()
        items.append(item)
        inputs.append(future.result())
    return items, inputs


def _preparing(encoder: PreparingEncoder, stack: ExitStack) -> tuple[Callable[[bytes], NDArray[Any]], int]:
    """What prepares an image's file, and how many threads call it.

    For an encoder on GPUs processes prepare, since threads would wait for each other; the threads read, and hand over.
    A daemon, as Celery's worker processes are, may start no process: there, threads prepare.
    """
    if not isinstance(encoder, DeviceEncoder):
        return encoder.prepare, cores()
    if multiprocessing.current_process().daemon:
        return encoder.preparer, cores()
    preparer, spawned = encoder.preparer, multiprocessing.get_context("spawn")
    processes = stack.enter_context(ProcessPoolExecutor(cores(), spawned, register_heif))
    return lambda raw: processes.submit(preparer, raw).result(), 2 * cores()
